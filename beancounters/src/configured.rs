//! The limits of the table, as a VE's configuration has them.
use vzconf::units::UNLIMITED;
use vzconf::{Config, Pair};

use crate::beancounter::Beancounter;
use crate::limits::finite;
use crate::resource::Resource;

/// The barriers and limits of a VE: those that are set, and for a configuration that limits RAM and swap those that
/// follow from these.
#[must_use]
pub fn configured(config: &Config, id: u32) -> Beancounter {
    let mut limits = Beancounter::new(id);
    let mut set = |resource: Resource, pair: Pair| {
        (limits[resource].barrier, limits[resource].limit) = (pair.barrier, pair.limit);
    };
    for (resource, pair) in derived(config) {
        set(resource, pair);
    }
    for resource in Resource::ALL {
        if let Some(pair) = config.ubc(resource.name()) {
            set(resource, pair);
        }
    }
    limits
}

/// What RAM and swap say about the other memory parameters (vzctl 4.x); nothing for a configuration without a limit of
/// RAM.
fn derived(config: &Config) -> Vec<(Resource, Pair)> {
    let Some(ram) = config.ubc("physpages").and_then(finite) else { return Vec::new() };
    let swap = config.ubc("swappages").and_then(finite);
    let both = swap.map_or(UNLIMITED, |swap| ram.saturating_add(swap).min(UNLIMITED));
    let guaranteed = |barrier| Pair { barrier, limit: UNLIMITED };
    let mut derived = vec![
        (Resource::Lockedpages, Pair::both(ram)),
        (Resource::Oomguarpages, guaranteed(ram)),
        (Resource::Vmguarpages, guaranteed(both)),
    ];
    let overcommit = config.vm_overcommit().filter(|times| *times > 0.0);
    if let (Some(times), true) = (overcommit, both < UNLIMITED) {
        // A factor of a few; a page more or less does not matter.
        derived.push((Resource::Privvmpages, Pair::both((both as f64 * times) as u64)));
    }
    derived
}

#[cfg(test)]
mod tests {
    use super::*;
    use vzconf::{ConfFile, Paths};

    fn limits(text: &str) -> Beancounter {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path());
        std::fs::create_dir_all(paths.vz_conf().parent().unwrap()).unwrap();
        std::fs::write(paths.vz_conf(), "").unwrap();
        let ctid = "101".parse().unwrap();
        let config = Config::global(&paths).unwrap().with_file(ctid, Some(ConfFile::parse(text)));
        configured(&config, 101)
    }

    fn pair(limits: &Beancounter, resource: Resource) -> (u64, u64) {
        (limits[resource].barrier, limits[resource].limit)
    }

    #[test]
    fn ram_and_swap_say_the_rest_unless_it_is_said() {
        let text =
            "PHYSPAGES=\"0:65536\"\nSWAPPAGES=\"0:131072\"\nVM_OVERCOMMIT=\"1.5\"\nLOCKEDPAGES=\"7:8\"\n";
        let limits = limits(text);
        assert_eq!(pair(&limits, Resource::Physpages), (0, 65536));
        assert_eq!(pair(&limits, Resource::Lockedpages), (7, 8));
        assert_eq!(pair(&limits, Resource::Oomguarpages), (65536, UNLIMITED));
        assert_eq!(pair(&limits, Resource::Vmguarpages), (196_608, UNLIMITED));
        assert_eq!(pair(&limits, Resource::Privvmpages), (294_912, 294_912));
        assert_eq!(pair(&limits, Resource::Numproc), (UNLIMITED, UNLIMITED));
    }

    #[test]
    fn without_a_limit_of_ram_nothing_follows() {
        let limits = limits("PHYSPAGES=\"0:unlimited\"\nKMEMSIZE=\"1000:2000\"\n");
        assert_eq!(pair(&limits, Resource::Kmemsize), (1000, 2000));
        assert_eq!(pair(&limits, Resource::Vmguarpages), (0, UNLIMITED));
        assert_eq!(pair(&limits, Resource::Lockedpages), (UNLIMITED, UNLIMITED));
    }
}
