// SPDX-License-Identifier: GPL-2.0-only
/*
 * Empty places in /proc that programs made for OpenVZ look for: /proc/user_beancounters, /proc/bc/ and
 * /proc/vz/. A file or a directory cannot be made there from outside of the kernel, only be mounted over.
 * This module does nothing else: what is shown there comes from user space, by mounts.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static int nothing(struct seq_file *file, void *unused)
{
	return 0;
}

static void vzproc_remove(void)
{
	/* Those that were not made are no error. */
	remove_proc_subtree("user_beancounters", NULL);
	remove_proc_subtree("bc", NULL);
	remove_proc_subtree("vz", NULL);
}

static int __init vzproc_init(void)
{
	if (proc_create_single("user_beancounters", 0400, NULL, nothing) &&
	    proc_create_mount_point("bc") && proc_create_mount_point("vz"))
		return 0;
	vzproc_remove();
	return -ENOMEM;
}

static void __exit vzproc_exit(void)
{
	vzproc_remove();
}

module_init(vzproc_init);
module_exit(vzproc_exit);
MODULE_DESCRIPTION("Empty mount points /proc/user_beancounters, /proc/bc and /proc/vz");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0");
