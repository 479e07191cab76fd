//! The CPUs that a thread may run on (sched_setaffinity(2)), as the kernel hands them out.

use rustix::io::Errno;

/// Larger masks than any kernel has (`NR_CPUS` ends at 8192, arch/x86/Kconfig) need not be asked for.
const MOST: usize = 1024;

/// The mask of a thread, one bit for each CPU, as long as the kernel's own or as `length`, whichever is shorter.
/// `length` is what its caller has room for, in bytes. Does not block.
///
/// # Errors
/// `EINVAL` when that is no whole number of words or too short, `ESRCH` when there is no such thread.
pub fn of_thread(tid: i32, length: usize) -> Result<Vec<u8>, Errno> {
    let mut mask = vec![0_u8; length.min(MOST)];
    // SAFETY: the kernel writes at most as many bytes as it is told, which are ours for the time of the call.
    let written = unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid, mask.len(), mask.as_mut_ptr()) };
    match usize::try_from(written) {
        Ok(written) => {
            mask.truncate(written);
            Ok(mask)
        }
        Err(_) => Err(crate::raw::last_errno()),
    }
}

/// Clears all bits of a mask but the first so many that are set.
pub fn keep_first(mask: &mut [u8], count: usize) {
    let mut left = count;
    for byte in mask {
        for bit in 0..u8::BITS {
            let one = 1 << bit;
            if *byte & one != 0 && left == 0 {
                *byte &= !one;
            } else if *byte & one != 0 {
                left -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_mask_is_what_rustix_says() {
        let known = rustix::thread::sched_getaffinity(None).unwrap();
        let mask = of_thread(0, 1024).unwrap();
        assert!(mask.len() >= 8 && mask.len().is_multiple_of(8));
        for cpu in 0..mask.len() * 8 {
            assert_eq!(mask[cpu / 8] >> (cpu % 8) & 1 == 1, known.is_set(cpu), "{cpu}");
        }
    }

    #[test]
    fn lengths_are_the_kernels_business() {
        assert_eq!(of_thread(0, 7), Err(Errno::INVAL));
        assert_eq!(of_thread(0, 0), Err(Errno::INVAL));
        assert_eq!(of_thread(i32::MAX, 128), Err(Errno::SRCH));
        assert!(of_thread(0, usize::MAX).is_ok());
    }

    #[test]
    fn the_first_bits_stay() {
        for (count, want) in [
            (0, [0, 0]),
            (1, [0b0000_0010, 0]),
            (2, [0b0000_1010, 0]),
            (3, [0b0000_1010, 1]),
            (9, [0b0000_1010, 0x81]),
        ] {
            let mut mask = [0b0000_1010, 0x81];
            keep_first(&mut mask, count);
            assert_eq!(mask, want, "{count}");
        }
    }
}
