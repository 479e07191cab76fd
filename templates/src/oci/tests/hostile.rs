//! Images that lie, or try to get out.

use std::fs;

use super::made::{Image, Layer, LayerBuilder};
use super::{Bench, How, rooted};
use crate::archive::{Entry, EntryKind};

/// An image of these layers.
fn image(layers: Vec<Layer>) -> Image {
    let mut image = Image::new();
    image.config["config"] = serde_json::json!({"Cmd": ["/app"]});
    layers.into_iter().for_each(|layer| image.layer(layer));
    image
}

#[test]
fn no_layer_reaches_out_of_its_tree() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let outside = bench.path("outside");
    fs::create_dir_all(outside.join("kept")).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let out = outside.to_str().unwrap();
    let up = format!("../../../../../../../../..{out}");
    let mut cases: Vec<(&str, Vec<Layer>, bool)> = Vec::new();
    for target in [out, up.as_str()] {
        let mut low = LayerBuilder::new();
        low.symlink("link", target).file("app", b"x", 0o755);
        let low = low.plain();
        let mut write = LayerBuilder::new();
        write.file("link/new", b"x", 0o644).file("link/file", b"changed", 0o644);
        cases.push(("writes through a link", vec![low.clone(), write.plain()], true));
        let mut hide = LayerBuilder::new();
        hide.file("link/.wh.file", b"", 0o644).file("link/.wh.kept", b"", 0o644);
        cases.push(("hides through a link", vec![low.clone(), hide.plain()], true));
        let mut opaque = LayerBuilder::new();
        opaque.file("link/.wh..wh..opq", b"", 0o644);
        cases.push(("hides all through a link", vec![low.clone(), opaque.plain()], true));
        let mut attributes = LayerBuilder::new();
        attributes.dir("link", 0o777);
        cases.push(("takes a link for a directory", vec![low, attributes.plain()], true));
    }
    for (what, path, good) in [
        ("an absolute name", format!("{out}/new"), true),
        ("a name that leads up", up.clone() + "/new", false),
        ("a whiteout of what leads up", ".wh...".to_owned(), false),
        ("a whiteout of nothing", ".wh.".to_owned(), false),
    ] {
        let mut layer = LayerBuilder::new();
        layer.file("app", b"x", 0o755);
        let mut entry = Entry::new("", EntryKind::File, 0o644);
        entry.path = path.into_bytes();
        layer.entry(&entry, b"x");
        cases.push((what, vec![layer.plain()], good));
    }
    let mut hard = LayerBuilder::new();
    hard.file("app", b"x", 0o755).hard_link("stolen", &format!("{out}/file"));
    cases.push(("a hard link to the host's file", vec![hard.plain()], false));
    for (what, layers, good) in cases {
        let dir = bench.path("image");
        let _ = fs::remove_dir_all(&dir);
        image(layers).layout(&dir, None);
        let done = bench.import(&format!("oci:{}", dir.display()));
        assert_eq!(done.is_ok(), good, "{what}: {done:?}");
        if good {
            bench.cache.rm("made", crate::cache::Force::Yes).unwrap();
        }
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept", "{what}");
        assert!(outside.join("kept").is_dir() && !outside.join("new").exists(), "{what}");
        bench.is_clean();
    }
}

#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let dir = bench.path("image");
    let mut layer = LayerBuilder::new();
    layer.file("app", b"x", 0o755);
    let layer = layer.gzip();
    let made = image(vec![layer.clone()]);
    let finished = made.finish();
    for (what, number) in [("layer", 0), ("config", 1), ("manifest", 2)] {
        for change in ["flipped", "longer", "shorter", "gone"] {
            let _ = fs::remove_dir_all(&dir);
            made.layout(&dir, None);
            let blob = &finished.blobs[number];
            let path = dir.join("blobs/sha256").join(&super::made::digest(blob)[7..]);
            let mut bytes = blob.clone();
            match change {
                "flipped" => *bytes.last_mut().unwrap() ^= 1,
                "longer" => bytes.push(0),
                "shorter" => drop(bytes.pop()),
                _ => fs::remove_file(&path).unwrap(),
            }
            if change != "gone" {
                fs::write(&path, bytes).unwrap();
            }
            let error = bench.import(&format!("oci:{}", dir.display())).unwrap_err();
            assert_eq!(error.exit(), vzconf::Exit::FsBadTmpl, "{what} {change}: {error}");
            bench.is_clean();
        }
    }
    // A right blob with other contents than the configuration says.
    let _ = fs::remove_dir_all(&dir);
    let mut lying = image(vec![layer]);
    lying.config["rootfs"]["diff_ids"][0] = serde_json::json!(super::made::digest(b"other"));
    lying.layout(&dir, None);
    let error = bench.import(&format!("oci:{}", dir.display())).unwrap_err();
    assert!(error.to_string().contains("diff_id"), "{error}");
    bench.is_clean();
}

#[test]
fn bombs_and_damaged_layers_leave_nothing() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let how = How { most: 1 << 20, ..bench.how() };
    let mut bomb = LayerBuilder::new();
    bomb.file("app", b"x", 0o755).file("zeros", &vec![0; 8 << 20], 0o644);
    let mut cut = LayerBuilder::new();
    cut.file("app", &[7; 100_000], 0o755);
    let mut cut = cut.gzip();
    cut.bytes.truncate(cut.bytes.len() / 2);
    let mut many = LayerBuilder::new();
    for number in 0..300 {
        many.file(&format!("{number}"), &[1; 4096], 0o644);
    }
    let layers = [bomb.gzip(), cut, Layer::of(b"no archive at all".to_vec()), many.zstd()];
    for (number, layer) in layers.into_iter().enumerate() {
        let dir = bench.path("image");
        let _ = fs::remove_dir_all(&dir);
        image(vec![layer]).layout(&dir, None);
        let error = bench.import_with(&format!("oci:{}", dir.display()), &how).unwrap_err();
        assert_ne!(error.exit(), vzconf::Exit::Ok, "{number}");
        bench.is_clean();
    }
}

#[test]
fn an_image_that_is_none_is_told() {
    let bench = Bench::new();
    let dir = bench.path("image");
    fs::create_dir(&dir).unwrap();
    let source = format!("oci:{}", dir.display());
    assert!(bench.import(&source).unwrap_err().to_string().contains("index.json"));
    for text in ["", "{", "[]", r#"{"schemaVersion":2,"manifests":[]}"#, r#"{"manifests":[{"digest":"x"}]}"#]
    {
        fs::write(dir.join("index.json"), text).unwrap();
        bench.import(&source).unwrap_err();
    }
    fs::remove_file(dir.join("index.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("index.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(bench.import(&source).unwrap_err().to_string().contains("regular"));
    bench.is_clean();
}
