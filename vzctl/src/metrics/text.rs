//! Families of metrics, in the words of the OpenMetrics specification, version 1.0.

use std::fmt::{Error, Result};
use std::sync::Mutex;

use beancounters::{Counted, Counter, Resource};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use ve::vitals::Vitals;
use vzconf::units::UNLIMITED;

/// Of a page in tables.
const PAGE: u64 = 4096;

/// A VE that runs.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) vitals: Vitals,
    /// Empty when it has none.
    pub(super) name: String,
}

/// All there is to tell.
#[derive(Debug)]
pub(super) struct Look {
    /// How many VEs have a configuration and do not run.
    pub(super) stopped: usize,
    pub(super) running: Vec<Container>,
}

/// The whole text, `# EOF` and all.
pub(super) fn text(look: Look) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(Mutex::new(look))));
    let mut out = String::new();
    // A string takes whatever is written to it.
    let _ = prometheus_client::encoding::text::encode(&mut out, &registry);
    out
}

/// The library wants something to share; nobody else has it.
#[derive(Debug)]
struct Families(Mutex<Look>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let look = self.0.lock().map_err(|_| Error)?;
        containers(&mut encoder, &look)?;
        let mut families = Of { encoder, running: &look.running };
        families.info()?;
        families.times()?;
        families.memory()?;
        families.disks()?;
        families.beancounters()
    }
}

fn containers(encoder: &mut DescriptorEncoder<'_>, look: &Look) -> Result {
    let help = "Containers with a configuration, by whether they run";
    let mut family = encoder.encode_descriptor("vz_containers", help, None, MetricType::Gauge)?;
    for (status, many) in [("running", look.running.len()), ("stopped", look.stopped)] {
        gauge(family.encode_family(&[("status", status)])?, many as f64)?;
    }
    Ok(())
}

fn gauge(encoder: MetricEncoder<'_>, value: f64) -> Result {
    ConstGauge::new(value).encode(encoder)
}

/// Families with a value, or several, for each VE.
struct Of<'e, 'l> {
    encoder: DescriptorEncoder<'e>,
    running: &'l [Container],
}

impl Of<'_, '_> {
    fn info(&mut self) -> Result {
        let help = "A container that runs";
        let mut family = self.encoder.encode_descriptor("vz_container", help, None, MetricType::Info)?;
        for one in self.running {
            let ctid = one.vitals.ctid.to_string();
            family.encode_info(&[("ctid", ctid.as_str()), ("name", one.name.as_str())])?;
        }
        Ok(())
    }

    fn times(&mut self) -> Result {
        self.gauges("vz_container_uptime", "Since its start", Some(Unit::Seconds), |vitals| {
            Some(vitals.uptime.as_secs_f64())
        })?;
        let help = "CPU time used since its start";
        let mut family = self.encoder.encode_descriptor(
            "vz_container_cpu",
            help,
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        for one in self.running {
            let ctid = one.vitals.ctid.to_string();
            for (mode, time) in [("user", one.vitals.cpu.user), ("system", one.vitals.cpu.system)] {
                let labels = [("ctid", ctid.as_str()), ("mode", mode)];
                ConstCounter::new(time.as_secs_f64()).encode(family.encode_family(&labels)?)?;
            }
        }
        self.gauges(
            "vz_container_cpu_limit",
            "CPUs whose time it may use; absent without a limit",
            None,
            |vitals| vitals.cpu_cap,
        )
    }

    fn memory(&mut self) -> Result {
        let held =
            |resource: Resource| move |vitals: &Vitals| Some((vitals.counters[resource].held * PAGE) as f64);
        let limit = |resource: Resource| {
            move |vitals: &Vitals| {
                let limit = vitals.counters[resource].limit;
                (limit < UNLIMITED).then(|| limit.saturating_mul(PAGE) as f64)
            }
        };
        let bytes = || Some(Unit::Bytes);
        self.gauges("vz_container_ram", "RAM in use", bytes(), held(Resource::Physpages))?;
        self.gauges("vz_container_ram_limit", "Absent without a limit", bytes(), limit(Resource::Physpages))?;
        self.gauges("vz_container_swap", "Swap space in use", bytes(), held(Resource::Swappages))?;
        self.gauges(
            "vz_container_swap_limit",
            "Absent without a limit",
            bytes(),
            limit(Resource::Swappages),
        )?;
        self.gauges("vz_container_processes", "Processes and threads", None, |vitals| {
            Some(vitals.counters[Resource::Numproc].held as f64)
        })
    }

    fn disks(&mut self) -> Result {
        let bytes = || Some(Unit::Bytes);
        self.counters("vz_container_disk_read", "Read from disks", bytes(), |vitals| {
            Some(vitals.io?.read_bytes)
        })?;
        self.counters("vz_container_disk_written", "Written to disks", bytes(), |vitals| {
            Some(vitals.io?.written_bytes)
        })?;
        self.counters("vz_container_disk_reads", "Read operations", None, |vitals| Some(vitals.io?.reads))?;
        self.counters("vz_container_disk_writes", "Write operations", None, |vitals| Some(vitals.io?.writes))
    }

    fn beancounters(&mut self) -> Result {
        self.of_counters("vz_beancounter_held", "In use, in bytes or pieces", |counter| Some(counter.held))?;
        self.of_counters("vz_beancounter_maxheld", "The most in use since the start", |counter| {
            Some(counter.maxheld)
        })?;
        let bound = |value: u64| (value < UNLIMITED).then_some(value);
        self.of_counters("vz_beancounter_barrier", "Absent without one", |counter| bound(counter.barrier))?;
        self.of_counters("vz_beancounter_limit", "Absent without one", |counter| bound(counter.limit))?;
        let help = "How often the limit refused since the start";
        let mut family =
            self.encoder.encode_descriptor("vz_beancounter_failcnt", help, None, MetricType::Counter)?;
        each(self.running, |ctid, resource, counter| {
            let labels = [("ctid", ctid), ("resource", resource.name())];
            ConstCounter::new(counter.failcnt).encode(family.encode_family(&labels)?)
        })
    }

    fn of_counters(&mut self, name: &str, help: &str, of: impl Fn(&Counter) -> Option<u64>) -> Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        each(self.running, |ctid, resource, counter| {
            let Some(value) = of(counter) else { return Ok(()) };
            let unit = if resource.counted() == Counted::Pages { PAGE } else { 1 };
            let labels = [("ctid", ctid), ("resource", resource.name())];
            gauge(family.encode_family(&labels)?, value.saturating_mul(unit) as f64)
        })
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        of: impl Fn(&Vitals) -> Option<f64>,
    ) -> Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for one in self.running {
            if let Some(value) = of(&one.vitals) {
                gauge(family.encode_family(&[("ctid", one.vitals.ctid.to_string())])?, value)?;
            }
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        of: impl Fn(&Vitals) -> Option<u64>,
    ) -> Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for one in self.running {
            if let Some(value) = of(&one.vitals) {
                let labels = [("ctid", one.vitals.ctid.to_string())];
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn each(running: &[Container], mut tell: impl FnMut(&str, Resource, &Counter) -> Result) -> Result {
    for one in running {
        let ctid = one.vitals.ctid.to_string();
        for (resource, counter) in one.vitals.counters.iter() {
            tell(&ctid, resource, counter)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use beancounters::{CpuTime, IoUsage};

    use super::*;
    use crate::top::sampler_tests::idle;

    #[test]
    fn values_have_names_units_and_labels() {
        let mut web = idle(101);
        web.cpu = CpuTime { user: Duration::from_millis(1500), system: Duration::ZERO };
        web.cpu_cap = Some(0.25);
        web.io = Some(IoUsage { read_bytes: 4096, written_bytes: 0, reads: 3, writes: 0 });
        web.counters[Resource::Physpages] = Counter { held: 2, limit: 10, failcnt: 7, ..Counter::default() };
        let plain = Vitals { io: None, ..idle(102) };
        let running = vec![
            Container { vitals: web, name: "we\"b".to_owned() },
            Container { vitals: plain, name: String::new() },
        ];
        let text = text(Look { stopped: 3, running });
        for line in [
            "# TYPE vz_container_cpu_seconds counter",
            "# UNIT vz_container_cpu_seconds seconds",
            "vz_containers{status=\"running\"} 2.0",
            "vz_containers{status=\"stopped\"} 3.0",
            "vz_container_info{ctid=\"101\",name=\"we\\\"b\"} 1",
            "vz_container_cpu_seconds_total{ctid=\"101\",mode=\"user\"} 1.5",
            "vz_container_cpu_limit{ctid=\"101\"} 0.25",
            "vz_container_ram_bytes{ctid=\"101\"} 8192.0",
            "vz_container_ram_limit_bytes{ctid=\"101\"} 40960.0",
            "vz_container_disk_read_bytes_total{ctid=\"101\"} 4096",
            "vz_container_disk_reads_total{ctid=\"101\"} 3",
            "vz_beancounter_limit{ctid=\"101\",resource=\"physpages\"} 40960.0",
            "vz_beancounter_failcnt_total{ctid=\"101\",resource=\"physpages\"} 7",
        ] {
            assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        for absent in
            ["cpu_limit{ctid=\"102\"", "ram_limit_bytes{ctid=\"102\"", "disk_reads_total{ctid=\"102\""]
        {
            assert!(!text.contains(absent), "{absent} in\n{text}");
        }
    }

    #[test]
    fn without_containers_there_are_families_all_the_same() {
        let text = text(Look { stopped: 0, running: Vec::new() });
        assert!(text.contains("vz_containers{status=\"running\"} 0.0\n") && text.ends_with("# EOF\n"));
    }
}
