//! OCI and Docker images: imported, run, exported, and read by programs of others.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use vztests::{Node, on_node, run, skip, until};

/// A tree with a static busybox as all its programs.
fn busybox_tree(at: &Path) {
    for dir in ["bin", "etc", "srv/app", "run/app"] {
        fs::create_dir_all(at.join(dir)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox-static is installed"), at.join("bin/busybox")).unwrap();
    for applet in ["sh", "sleep", "cat", "id", "true", "ls", "stat", "env", "pwd", "kill", "readlink"] {
        std::os::unix::fs::symlink("busybox", at.join("bin").join(applet)).unwrap();
    }
    fs::write(at.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n").unwrap();
    fs::write(at.join("etc/group"), "root:x:0:\nweb:x:33:\nlog:x:44:web\n").unwrap();
    fs::write(at.join("run/app/kept"), "from the image").unwrap();
    std::os::unix::fs::chown(at.join("run/app"), Some(33), Some(33)).unwrap();
}

fn sum(path: &Path) -> String {
    run("sha256sum", &[path.to_str().unwrap()]).ok().out().split(' ').next().unwrap().to_owned()
}

/// What `docker save` writes, made by tar and sha256sum.
fn saved(node: &Node, name: &str, config: &serde_json::Value) -> PathBuf {
    let dir = node.scratch().join(name);
    let tree = dir.join("tree");
    fs::create_dir_all(&tree).unwrap();
    busybox_tree(&tree);
    let work = dir.join("image");
    fs::create_dir(&work).unwrap();
    let layer = work.join("layer.tar");
    run("tar", &["-C", tree.to_str().unwrap(), "-cf", layer.to_str().unwrap(), "."]).ok();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": arch, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sum(&layer))]}
    });
    fs::write(work.join("c.json"), config.to_string()).unwrap();
    let config = format!("{}.json", sum(&work.join("c.json")));
    fs::rename(work.join("c.json"), work.join(&config)).unwrap();
    let manifest = serde_json::json!([{"Config": config, "RepoTags": ["app:v1"], "Layers": ["layer.tar"]}]);
    fs::write(work.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("saved.tar");
    let names = ["-C", work.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."];
    run("tar", &names).ok();
    archive
}

/// An application that writes down how it was started, and how it was asked to end.
const APP: &str = "trap 'echo quit >/srv/app/end; exit 3' QUIT; \
    { id -u; id -G; pwd; echo $GREETING; readlink /proc/self/fd/1; cat /run/app/kept; } >/srv/app/began; \
    echo the application speaks; sleep 1000 & while :; do wait; done";

fn app() -> serde_json::Value {
    serde_json::json!({
        "Env": ["PATH=/bin", "GREETING=hello world"], "User": "web", "WorkingDir": "/srv/app",
        "Entrypoint": ["sh", "-c"], "Cmd": [APP], "StopSignal": "SIGQUIT"
    })
}

#[test]
fn an_image_without_an_init_runs_its_command_as_it_wants() {
    on_node(|node| {
        let archive = saved(node, "app", &app());
        // The user writes where it works.
        node.vztmpl(&["import", &format!("docker-archive:{}", archive.display()), "app"]).ok();
        assert_eq!(node.vztmpl(&["info", "app", "--json"]).ok().json()["image"]["User"], "web");
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "app"]);
        ve.ok("mount", &[]);
        std::os::unix::fs::chown(ve.root().join("srv/app"), Some(33), Some(33)).unwrap();
        ve.ok("umount", &[]);
        let address = format!("10.77.{}.1", node.first_ctid() % 250);
        ve.ok("set", &["--ipadd", &address, "--save"]);
        ve.ok("start", &["--wait"]);
        until("the application began", std::time::Duration::from_secs(30), || {
            ve.run("exec2", &["cat /srv/app/began"]).out().lines().count() >= 6
        });
        let began = ve.sh("cat /srv/app/began");
        let lines: Vec<&str> = began.lines().collect();
        assert_eq!(lines[..4], ["33", "33 44", "/srv/app", "hello world"], "{began}");
        assert_eq!(lines[5], "from the image", "{began}");
        // Addresses without a program for them in the image.
        let devices = ve.sh("cat /proc/net/fib_trie");
        assert!(devices.contains(&address), "{devices}");
        // Orphans are reaped.
        ve.sh("(sleep 0 & ) ; true");
        let zombies = || ve.sh("cat /proc/[0-9]*/stat").lines().any(|line| line.contains(") Z "));
        until("no zombie is left", std::time::Duration::from_secs(20), || !zombies());
        let begun = std::time::Instant::now();
        let stopped = ve.ok("stop", &[]);
        assert!(!stopped.text().contains("Killing"), "{stopped} after {:?}", begun.elapsed());
        ve.ok("mount", &[]);
        assert_eq!(fs::read_to_string(ve.root().join("srv/app/end")).unwrap(), "quit\n");
        ve.ok("umount", &[]);
        // Once more: nothing of the first life hinders the second.
        ve.ok("start", &["--wait"]);
        ve.ok("stop", &[]);
    });
}

#[test]
fn a_command_that_ends_ends_its_container() {
    on_node(|node| {
        let config = serde_json::json!({"Cmd": ["/bin/sh", "-c", "sleep 1000 & exit 7"]});
        let archive = saved(node, "short", &config);
        node.vztmpl(&["import", &format!("docker-archive:{}:app:v1", archive.display())]).ok();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "app-v1"]);
        ve.ok("start", &[]);
        ve.becomes("exist unmounted down");
    });
}

#[test]
fn a_mere_shell_waits_at_the_console_and_ends_when_it_is_asked_to() {
    on_node(|node| {
        let archive = saved(node, "shell", &serde_json::json!({"Cmd": ["/bin/sh"]}));
        node.vztmpl(&["import", &format!("docker-archive:{}", archive.display()), "--name", "shell"]).ok();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "shell"]);
        ve.start();
        let stopped = ve.ok("stop", &[]);
        assert!(!stopped.text().contains("Killing"), "{stopped}");
    });
}

#[test]
fn what_is_exported_is_read_by_others_and_comes_back() {
    on_node(|node| {
        node.need_tiny();
        let dir = node.scratch().join("layout");
        let target = format!("oci:{}:v1", dir.display());
        let first = node.vztmpl(&["export", "tiny", &target, "--json"]).ok().json();
        let again = node.vztmpl(&["export", "tiny", &target, "--json"]).ok().json();
        assert_eq!(first["digest"], again["digest"]);
        node.vztmpl(&["import", &target, "back"]).ok();
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", "back"]);
        ve.start();
        assert_eq!(ve.sh("cat /proc/1/comm"), "init");
        ve.ok("stop", &[]);
        read_by_skopeo(node, &dir, &target);
        read_by_umoci(node, &dir);
    });
}

fn has(program: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        skip(&format!("{program}, which is not installed"));
    }
    there
}

/// skopeo checks every digest as it copies, and writes a Docker archive that we read again.
fn read_by_skopeo(node: &Node, dir: &Path, target: &str) {
    if !has("skopeo") {
        return;
    }
    run("skopeo", &["inspect", target]).ok();
    let archive = node.scratch().join("by-skopeo.tar");
    let copy = format!("docker-archive:{}:tiny:v1", archive.display());
    run("skopeo", &["--insecure-policy", "copy", &format!("oci:{}:v1", dir.display()), &copy]).ok();
    node.vztmpl(&["import", &format!("docker-archive:{}", archive.display()), "by-skopeo"]).ok();
    assert_eq!(node.vztmpl(&["info", "by-skopeo", "--json"]).ok().json()["init"], "busybox");
}

/// umoci unpacks a layout by its own rules.
fn read_by_umoci(node: &Node, dir: &Path) {
    if !has("umoci") {
        return;
    }
    let bundle = node.scratch().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:v1", dir.display()), bundle.to_str().unwrap()]).ok();
    let busybox = fs::metadata(bundle.join("rootfs/bin/busybox")).unwrap();
    assert_eq!((busybox.uid(), busybox.permissions().mode() & 0o7777), (0, 0o755));
    assert_eq!(fs::read_link(bundle.join("rootfs/sbin/init")).unwrap(), Path::new("/bin/busybox"));
}
