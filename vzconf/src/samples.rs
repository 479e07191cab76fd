//! Sample configs: what a VE is created from, and the ones that are shipped.
use crate::{ConfFile, Error, Exit, Paths};

/// The shipped global config.
pub const VZ_CONF: &str = include_str!("../../packaging/conf/vz.conf");

/// The shipped sample configs: name and text.
pub const SHIPPED: [(&str, &str); 8] = [
    ("basic", include_str!("../../packaging/conf/ve-basic.conf-sample")),
    ("light", include_str!("../../packaging/conf/ve-light.conf-sample")),
    ("vswap-256m", include_str!("../../packaging/conf/ve-vswap-256m.conf-sample")),
    ("vswap-512m", include_str!("../../packaging/conf/ve-vswap-512m.conf-sample")),
    ("vswap-1g", include_str!("../../packaging/conf/ve-vswap-1g.conf-sample")),
    ("vswap-1024m", include_str!("../../packaging/conf/ve-vswap-1024m.conf-sample")),
    ("vswap-2g", include_str!("../../packaging/conf/ve-vswap-2g.conf-sample")),
    ("vswap-4g", include_str!("../../packaging/conf/ve-vswap-4g.conf-sample")),
];

/// The config a new VE begins with: the sample's text, with ORIGIN_SAMPLE set unless it has one.
///
/// # Errors
/// [`Error::NoSample`] with exit 82.
pub fn instantiate(paths: &Paths, name: &str) -> Result<ConfFile, Error> {
    let path = paths.sample(name);
    if name.contains('/') {
        return Err(Error::NoSample { path, exit: Exit::CpConfig });
    }
    let mut file = ConfFile::load(&path).map_err(|_| Error::NoSample { path, exit: Exit::CpConfig })?;
    if file.get("ORIGIN_SAMPLE").is_none() {
        file.set("ORIGIN_SAMPLE", name)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::units::{UNLIMITED, page_size};
    use crate::{Config, Ctid, Pair};

    fn node() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path());
        fs::create_dir_all(paths.conf_dir()).unwrap();
        fs::write(paths.vz_conf(), VZ_CONF).unwrap();
        for (name, text) in SHIPPED {
            fs::write(paths.sample(name), text).unwrap();
        }
        (dir, paths)
    }

    fn view(paths: &Paths, name: &str) -> Config {
        let file = instantiate(paths, name).unwrap();
        Config::global(paths).unwrap().with_file(Ctid::new(101).unwrap(), Some(file))
    }

    #[test]
    fn the_global_config_says_what_is_documented_and_nothing_invalid() {
        let (_dir, paths) = node();
        let c = Config::load(&paths, Ctid::new(101).unwrap()).unwrap();
        assert_eq!(c.warnings(), [""; 0]);
        assert_eq!(c.ve_private().unwrap(), std::path::Path::new("/vz/private/101"));
        assert_eq!(c.ve_root().unwrap(), std::path::Path::new("/vz/root/101"));
        assert_eq!(c.lock_dir(), std::path::Path::new("/vz/lock"));
        assert_eq!(
            (c.configfile(), c.def_ostemplate()),
            (Some("vswap-256m"), Some("debian-12-x86_64-minimal"))
        );
        assert_eq!((c.layout(), c.local_uid()), (Some("auto"), None));
        assert_eq!(c.nameservers(), ["inherit"]);
        assert!(c.ipv6() && c.logging() && c.disk_quota());
    }

    #[test]
    fn every_sample_is_valid_and_complete() {
        let (_dir, paths) = node();
        for (name, _) in SHIPPED {
            let c = view(&paths, name);
            assert_eq!(c.warnings(), [""; 0], "{name}");
            assert_eq!(c.get("ORIGIN_SAMPLE"), Some(name));
            assert!(c.diskspace().is_some() && c.diskinodes().is_some() && c.cpuunits().is_some(), "{name}");
            assert_eq!(c.get("NETFILTER"), Some("stateless"));
        }
        let (basic, light) = (view(&paths, "basic"), view(&paths, "light"));
        assert_eq!(basic.ubc("kmemsize"), Some(Pair { barrier: 14_372_700, limit: 14_790_164 }));
        assert_eq!(light.ubc("oomguarpages"), Some(Pair { barrier: 1725, limit: UNLIMITED }));
        assert_eq!((basic.cpuunits(), light.cpuunits()), (Some(1000), Some(250)));
        assert_eq!(basic.diskspace(), Some(Pair { barrier: 2 << 20, limit: 2_306_867 }));
    }

    #[test]
    fn vswap_samples_have_twice_as_much_swap_as_memory() {
        let (_dir, paths) = node();
        for (name, mib) in
            [("256m", 256), ("512m", 512), ("1g", 1024), ("1024m", 1024), ("2g", 2048), ("4g", 4096)]
        {
            let c = view(&paths, &format!("vswap-{name}"));
            let pages = (mib << 20) / page_size();
            assert_eq!(c.ubc("physpages"), Some(Pair { barrier: 0, limit: pages }), "{name}");
            assert_eq!(c.ubc("swappages"), Some(Pair { barrier: 0, limit: 2 * pages }), "{name}");
        }
    }

    #[test]
    fn a_missing_sample_is_exit_82() {
        let (_dir, paths) = node();
        for name in ["nope", "../../etc/passwd"] {
            assert_eq!(instantiate(&paths, name).unwrap_err().exit().code(), 82);
        }
    }
}
