//! On real images.

use super::*;
use std::fs;
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;

fn image(dir: &Path, size: Size) -> Image {
    let path = dir.join("image");
    make(&path, size, &dir.join("blanks")).unwrap();
    Image::open(&path).unwrap()
}

fn shown(mounted: &Detached) -> (u64, u64) {
    let stat = rustix::fs::fstatvfs(mounted).unwrap();
    (stat.f_blocks * stat.f_frsize, stat.f_files)
}

fn write(mounted: &Detached, name: &str, bytes: &[u8]) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(mounted.as_fd(), name, flags, Mode::RUSR).unwrap();
    File::from(file).write_all_at(bytes, 0).unwrap();
}

fn read(mounted: &Detached, name: &str) -> Vec<u8> {
    let path = format!("{}/{name}", mounted.proc_path());
    fs::read(path).unwrap()
}

#[test]
fn df_shows_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [16, 50, 93, 100, 127, 2253, 40_000];
    for (number, mib) in sizes.into_iter().enumerate() {
        let inodes = [50, 93, 127, 2253].contains(&mib).then_some(144_179);
        let path = dir.path().join(number.to_string());
        make(&path, Size { bytes: mib * MIB, inodes }, &dir.path().join("blanks")).unwrap();
        let image = Image::open(&path).unwrap();
        let mounted = image.mount().unwrap();
        let (bytes, files) = shown(&mounted);
        assert!(bytes >= mib * MIB && bytes < (mib + mib / 50 + 5) * MIB, "{mib} MiB: {bytes}");
        assert!(
            inodes.is_none_or(|count| files >= count && files < count + count / 10),
            "{mib} MiB: {files} inodes"
        );
        assert!(image.taken().unwrap() < 9 * MIB, "{mib} MiB take {}", image.taken().unwrap());
    }
    let error = make(&dir.path().join("small"), Size { bytes: MIB, inodes: None }, dir.path()).unwrap_err();
    assert_eq!(error.exit(), Exit::ResizeImage);
}

#[test]
fn a_mounted_image_is_shared_and_not_mounted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), Size { bytes: 32 * MIB, inodes: None });
    let one = image.mount().unwrap();
    write(&one, "file", b"one");
    let two = Image::open(&dir.path().join("image")).unwrap().mount().unwrap();
    assert_eq!(read(&two, "file"), b"one");
    let device = |mount: &Detached| rustix::fs::fstat(mount).unwrap().st_dev;
    assert_eq!(device(&one), device(&two));
    drop(one);
    write(&two, "file", b"two");
    drop(two);
    let three = image.mount().unwrap();
    assert_eq!(read(&three, "file"), b"two");
    assert!(Loop::of(&image.file).unwrap().is_some());
}

#[test]
fn what_is_made_is_on_the_disk_once_it_is_settled_and_not_before_each_step() {
    let dir = tempfile::tempdir().unwrap();
    let made = image(dir.path(), Size { bytes: 32 * MIB, inodes: None });
    let around = |image: &Image| {
        let device = Loop::of(&image.file).unwrap().unwrap();
        let name = device.path().file_name().unwrap().to_str().unwrap().to_owned();
        fs::read_to_string(format!("/sys/block/{name}/loop/dio")).unwrap().trim() == "1"
    };
    let new = made.mount_new().unwrap();
    assert!(!around(&made), "a device of an image in the making goes through the page cache");
    write(&new, "file", &[7; 100_000]);
    drop(new);
    made.settle().unwrap();
    assert!(Loop::of(&made.file).unwrap().is_none() && !made.superblock().unwrap().is_dirty());
    let mounted = made.mount().unwrap();
    assert_eq!(around(&made), direct_io(dir.path()).is_ok());
    assert_eq!(read(&mounted, "file"), [7; 100_000]);
}

#[test]
fn a_dirty_image_is_mended_and_a_corrupt_one_told() {
    let dir = tempfile::tempdir().unwrap();
    let made = image(dir.path(), Size { bytes: 32 * MIB, inodes: None });
    let mounted = made.mount().unwrap();
    write(&mounted, "file", &[7; 100_000]);
    rustix::fs::syncfs(directory(&mounted).unwrap()).unwrap();
    // As the power cut leaves it.
    let cut = dir.path().join("cut");
    copy(&made.file, &new_file(&cut).unwrap(), &mut |_, _| ()).unwrap();
    drop(mounted);
    let cut = Image::open(&cut).unwrap();
    assert!(cut.superblock().unwrap().is_dirty());
    let mounted = cut.mount().unwrap();
    assert_eq!(read(&mounted, "file"), [7; 100_000]);
    drop(mounted);
    // Group descriptors and bitmaps overwritten, and the file system marked as one with errors.
    let corrupt = dir.path().join("corrupt");
    copy(&cut.file, &new_file(&corrupt).unwrap(), &mut |_, _| ()).unwrap();
    let corrupt = Image::open(&corrupt).unwrap();
    corrupt.file.write_all_at(&[0xFF; 8192], 4096).unwrap();
    corrupt.file.write_all_at(&[2, 0], OFFSET_OF_STATE).unwrap();
    let error = corrupt.mount().unwrap_err();
    assert!(matches!(error, ImageError::Damaged { .. } | ImageError::Program { .. }), "{error}");
    assert_eq!(error.exit(), Exit::MountImage);
    let none = dir.path().join("none");
    fs::write(&none, vec![0; 8192]).unwrap();
    assert!(matches!(Image::open(&none).unwrap().mount(), Err(ImageError::NotAnImage { .. })));
    std::os::unix::fs::symlink("image", dir.path().join("link")).unwrap();
    assert!(Image::open(&dir.path().join("link")).is_err());
    assert!(Image::open(dir.path()).is_err());
}

const OFFSET_OF_STATE: u64 = 1024 + 0x3A;

#[test]
fn a_size_is_changed_both_ways_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let made = image(dir.path(), Size { bytes: 64 * MIB, inodes: Some(5000) });
    let mounted = made.mount().unwrap();
    let bytes: Vec<u8> = (0..20 * MIB).map(|at| (at % 251) as u8).collect();
    write(&mounted, "file", &bytes);
    drop(mounted);
    let (path, blanks) = (dir.path().join("image"), dir.path().join("blanks"));
    for mib in [300, 300, 40, 41] {
        Image::open(&path)
            .unwrap()
            .resize(Size { bytes: mib * MIB, inodes: Some(5000) }, &blanks, Mounts::Stay, &mut |_, _| ())
            .unwrap();
        let image = Image::open(&path).unwrap();
        let mounted = image.mount().unwrap();
        let (shown, _) = shown(&mounted);
        assert!(shown >= mib * MIB && shown < mib * MIB + 3 * MIB, "{mib} MiB: {shown}");
        assert!(read(&mounted, "file") == bytes);
    }
    let image = Image::open(&path).unwrap();
    let error = image
        .resize(Size { bytes: 18 * MIB, inodes: Some(5000) }, &blanks, Mounts::Stay, &mut |_, _| ())
        .unwrap_err();
    assert_eq!(error.exit(), Exit::ResizeImage, "{error}");
    let mounted = image.mount().unwrap();
    let error = image
        .resize(Size { bytes: 30 * MIB, inodes: Some(5000) }, &blanks, Mounts::Stay, &mut |_, _| ())
        .unwrap_err();
    assert!(matches!(error, ImageError::Mounted { .. }), "{error}");
    match image.resize(Size { bytes: 400 * MIB, inodes: Some(5000) }, &blanks, Mounts::Stay, &mut |_, _| ()) {
        Ok(done) => {
            assert_eq!(done, Resized::Grown);
            assert!(shown(&mounted).0 >= 400 * MIB);
        }
        Err(error) => assert!(matches!(error, ImageError::Mounted { .. }), "{error}"),
    }
    assert!(!dir.path().join("image.new").exists());
}

#[test]
fn what_was_deleted_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let made = image(dir.path(), Size { bytes: 128 * MIB, inodes: None });
    let mounted = made.mount().unwrap();
    write(&mounted, "file", &vec![1; 50 << 20]);
    rustix::fs::syncfs(directory(&mounted).unwrap()).unwrap();
    assert!(made.taken().unwrap() > 50 * MIB);
    rustix::fs::unlinkat(mounted.as_fd(), "file", rustix::fs::AtFlags::empty()).unwrap();
    let gained = made.compact().unwrap();
    assert!(gained > 45 * MIB, "{gained}");
}
