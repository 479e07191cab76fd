//! Images made here, read back; hostile ones; a registry on loopback.

mod hostile;
mod made;
mod pull;
mod server;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use self::made::{Image, LayerBuilder};
use super::*;
use crate::archive::Unpack;
use crate::build::{BuildError, Replace};
use crate::cache::{Cache, Template};

/// A cache that goes with the test.
struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let cache = Cache::open(&dir.path().join("template"));
        Self { dir, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn how(&self) -> How {
        // The head of a static program will do: nothing runs here.
        let init = self.path("vzinit");
        if !init.exists() {
            let mut program = vec![0; 64];
            program[..5].copy_from_slice(b"\x7fELF\x02");
            program[18] = 0x3e;
            fs::write(&init, program).unwrap();
        }
        How {
            platform: None,
            most: 1 << 30,
            init: Preference::Auto,
            init_program: init,
            access: Access { plain_http: true, auth_file: None },
        }
    }

    fn import(&self, source: &str) -> Result<Template, BuildError> {
        self.import_with(source, &self.how())
    }

    fn import_with(&self, source: &str, how: &How) -> Result<Template, BuildError> {
        let source = Source::parse(source).unwrap().unwrap();
        super::import(&self.cache, &source, "made", how, Replace::Yes, &mut |_| {})
    }

    /// The tree of the template, unpacked.
    fn tree(&self, template: &Template) -> PathBuf {
        let root = self.path("root");
        let _ = fs::remove_dir_all(&root);
        Unpack::new(&template.path).into(&root).unwrap();
        root
    }

    /// Fails unless an import left nothing behind.
    fn is_clean(&self) {
        assert!(self.cache.list().unwrap().is_empty());
        let left: Vec<_> = fs::read_dir(self.path("template")).into_iter().flatten().flatten().collect();
        let names: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
        assert!(names.iter().all(|name| name == "cache" || name == "base"), "{names:?}");
    }
}

fn rooted() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("\nSKIP: needs root, for owners of files");
    }
    root
}

/// A system with a shell, an init of its own, and a layer over it that changes it in every way.
fn two_layers(image: &mut Image) {
    let mut low = LayerBuilder::new();
    low.dir("bin", 0o755).file("bin/sh", b"#!", 0o755).dir("sbin", 0o755).file("sbin/init", b"#!", 0o755);
    low.dir("etc", 0o755).file("etc/gone", b"x", 0o644).file("etc/kept", b"x", 0o644);
    low.dir("opaque", 0o755).file("opaque/old", b"x", 0o644).dir("opaque/deep", 0o755);
    low.file("opaque/deep/old", b"x", 0o644).dir("tree", 0o755).file("tree/a", b"x", 0o644);
    low.file("was-file", b"x", 0o644).dir("was-dir", 0o755).file("was-dir/x", b"x", 0o644);
    low.file("linked", b"shared", 0o644).symlink("lib", "/etc").device("node", 1, 3);
    image.layer(low.plain());
    let mut high = LayerBuilder::new();
    high.file("etc/.wh.gone", b"", 0o644).file("opaque/deep/new", b"n", 0o644);
    high.file("opaque/.wh..wh..opq", b"", 0o644).file("opaque/new", b"n", 0o644);
    high.file(".wh.tree", b"", 0o644).dir("was-file", 0o755).file("was-file/in", b"n", 0o644);
    high.file("was-dir", b"n", 0o644).hard_link("again", "linked").file("lib/by-link", b"n", 0o644);
    high.dir_with("etc", 0o750, &[("user.mine", b"yes\n\0")]).file("etc/.wh..wh.aufs", b"", 0o644);
    image.layer(high.gzip());
}

#[test]
fn layers_are_laid_over_one_another() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let mut image = Image::new();
    two_layers(&mut image);
    image.layout(&bench.path("image"), Some("v1"));
    let template = bench.import(&format!("oci:{}:v1", bench.path("image").display())).unwrap();
    let tree = bench.tree(&template);
    let there = |path: &str| tree.join(path).symlink_metadata().is_ok();
    for path in ["etc/kept", "opaque/new", "opaque/deep/new", "was-file/in", "again", "etc/by-link", "run"] {
        assert!(there(path), "{path} is missing");
    }
    for path in ["etc/gone", "etc/.wh.gone", "opaque/old", "opaque/deep/old", "tree", "etc/.wh..wh.aufs"] {
        assert!(!there(path), "{path} is there");
    }
    assert!(tree.join("was-dir").is_file());
    let inode = |path: &str| fs::metadata(tree.join(path)).unwrap().ino();
    assert_eq!(inode("linked"), inode("again"));
    assert_eq!(fs::metadata(tree.join("etc")).unwrap().permissions().mode() & 0o7777, 0o750);
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(tree.join("etc"), "user.mine", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"yes\n\0");
    assert_eq!(rustix::fs::major(fs::symlink_metadata(tree.join("node")).unwrap().rdev()), 1);
}

#[test]
fn an_image_keeps_its_configuration_and_gets_an_init_that_runs_it() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let mut image = Image::new();
    image.config["config"] = serde_json::json!({
        "Env": ["PATH=/app", "A=b"], "User": "33:34", "WorkingDir": "/srv/app", "Entrypoint": ["/app/run"],
        "Cmd": ["--port", "80"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
        "Labels": {"org.example": "x"}, "Volumes": {"/data/../data": {}}
    });
    let mut layer = LayerBuilder::new();
    layer.dir("app", 0o755).file("app/run", b"#!", 0o755).symlink(".vz", "app");
    image.layer(layer.zstd());
    image.layout(&bench.path("image"), None);
    let template = bench.import(&format!("oci:{}", bench.path("image").display())).unwrap();
    let metadata = template.metadata.clone().unwrap();
    assert_eq!(metadata.init, "command");
    let config = metadata.image.unwrap();
    assert_eq!(config.command(), ["/app/run", "--port", "80"]);
    assert_eq!((config.user.as_str(), config.stop_signal.as_str()), ("33:34", "SIGQUIT"));
    assert_eq!(config.labels["org.example"], "x");
    let tree = bench.tree(&template);
    // What the image had under our name is gone; nothing went through its link.
    assert!(tree.join(".vz/init").is_file() && !tree.join("app/init").exists());
    assert!(tree.join("srv/app").is_dir() && tree.join("data").is_dir() && tree.join("etc").is_dir());
    let command: serde_json::Value =
        serde_json::from_slice(&fs::read(tree.join(".vz/command.json")).unwrap()).unwrap();
    assert_eq!(command["command"], serde_json::json!(["/app/run", "--port", "80"]));
    assert_eq!(command["user"], "33:34");
}

#[test]
fn whose_init_it_is_depends_on_what_the_image_runs() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let cases: [(&[&str], Option<&str>, &str); 5] = [
        (&["bash"], Some("systemd"), "systemd"),
        (&["/sbin/init"], Some("busybox"), "busybox"),
        (&["sh"], Some("busybox"), "command"),
        (&["nginx"], Some("systemd"), "command"),
        (&["/usr/lib/systemd/systemd"], None, "systemd"),
    ];
    for (command, init, want) in cases {
        let mut image = Image::new();
        image.config["config"] = serde_json::json!({ "Cmd": command });
        let mut layer = LayerBuilder::new();
        layer.dir("bin", 0o755).file("bin/sh", b"#!", 0o755).dir("sbin", 0o755);
        layer.dir("usr/lib/systemd", 0o755).file("usr/lib/systemd/systemd", b"x", 0o755);
        layer.file("bin/busybox", b"x", 0o755);
        match init {
            Some("systemd") => drop(layer.symlink("sbin/init", "/usr/lib/systemd/systemd")),
            Some(_) => drop(layer.symlink("sbin/init", "/bin/busybox")),
            None => {}
        }
        image.layer(layer.plain());
        let _ = fs::remove_dir_all(bench.path("image"));
        image.layout(&bench.path("image"), None);
        let template = bench.import(&format!("oci:{}", bench.path("image").display())).unwrap();
        assert_eq!(template.metadata.unwrap().init, want, "{command:?} {init:?}");
    }
}

#[test]
fn the_hosts_image_is_chosen_among_several() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let dir = bench.path("image");
    let host = Platform::host();
    for arch in ["s390x", host.arch.as_str()] {
        let mut image = Image::new();
        image.config["architecture"] = serde_json::json!(arch);
        let mut layer = LayerBuilder::new();
        layer.dir("bin", 0o755).file("bin/sh", b"#!", 0o755).dir("sbin", 0o755);
        layer.file("sbin/init", arch.as_bytes(), 0o755);
        image.layer(layer.plain());
        image.layout(&dir, Some("multi"));
    }
    let source = format!("oci:{}:multi", dir.display());
    let read = |template: &Template| fs::read_to_string(bench.tree(template).join("sbin/init")).unwrap();
    assert_eq!(read(&bench.import(&source).unwrap()), host.arch);
    let how = How { platform: Some("s390x".parse().unwrap()), ..bench.how() };
    assert_eq!(read(&bench.import_with(&source, &how).unwrap()), "s390x");
    let how = How { platform: Some("riscv64".parse().unwrap()), ..bench.how() };
    let error = bench.import_with(&source, &how).unwrap_err();
    assert_eq!(error.exit(), vzconf::Exit::OstemplateNotFound);
    assert!(error.to_string().contains("s390x"), "{error}");
}

#[test]
fn an_exported_template_comes_back_and_has_the_same_digests_each_time() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let mut image = Image::new();
    image.config["config"] = serde_json::json!({
        "Cmd": ["/app"], "Env": ["A=b"], "Labels": {"a": "1", "b": "2", "c": "3", "d": "4"},
        "ExposedPorts": {"1/tcp": {}, "2/tcp": {}, "3/tcp": {}}
    });
    let mut layer = LayerBuilder::new();
    layer.file("app", b"#!", 0o755).hard_link("same", "app").device("null", 1, 3);
    image.layer(layer.gzip());
    image.layout(&bench.path("image"), None);
    let template = bench.import(&format!("oci:{}", bench.path("image").display())).unwrap();
    let before = crate::archive::TreeDigest::of(&bench.tree(&template)).unwrap();
    let out = |name: &str| {
        let target = Source::parse(&format!("oci:{}:v1", bench.path(name).display())).unwrap().unwrap();
        super::export(&template, &target, &mut |_| {}).unwrap()
    };
    let (one, two, again) = (out("one"), out("two"), out("one"));
    assert_eq!((&one, &one), (&two, &again));
    let mut files: Vec<_> =
        fs::read_dir(bench.path("one")).unwrap().flatten().map(|e| e.file_name()).collect();
    files.sort();
    assert_eq!(files, ["blobs", "index.json", "oci-layout"]);
    let back = bench.import(&format!("oci:{}:v1", bench.path("one").display())).unwrap();
    let differs = before.diff(&crate::archive::TreeDigest::of(&bench.tree(&back)).unwrap());
    // Our own files, and the root that they are in, are as old as the import.
    let theirs = |line: &&String| !line.starts_with(".vz") && !line.starts_with(".:");
    assert_eq!(differs.iter().filter(theirs).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(back.metadata.unwrap().image, template.metadata.unwrap().image);
}

#[test]
fn an_export_refuses_what_is_no_layout_and_leaves_nothing() {
    let bench = Bench::new();
    let template = crate::build::tiny(&bench.cache, "tiny", Replace::No).unwrap();
    let full = bench.path("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "x").unwrap();
    let of = |path: &Path| Source::parse(&format!("oci:{}", path.display())).unwrap().unwrap();
    assert!(super::export(&template, &of(&full), &mut |_| {}).is_err());
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    let gone = Template { path: bench.path("no-such.tar"), ..template };
    assert!(super::export(&gone, &of(&bench.path("new")), &mut |_| {}).is_err());
    assert!(!bench.path("new").exists());
}
