use super::*;
use proptest::prelude::*;
use vzconf::Pair;
use vzconf::units::UNLIMITED;

fn facts(generation: Generation) -> Facts {
    let all = Some(generation);
    Facts {
        cpu: all,
        cpuset: all,
        memory: all,
        pids: all,
        io: all,
        page_size: 4096,
        memory_now: (i64::MAX as u64 - 4095, Some(i64::MAX as u64 - 4095)),
        burst_now: 0,
        cpus: "0-7".parse().ok(),
        nodes: "0-1".parse().ok(),
        node_cpus: "4-7".parse().ok(),
    }
}

fn lines(limits: &Limits, facts: &Facts) -> Vec<String> {
    let plan = LimitPlan::new(limits, facts).unwrap();
    plan.writes.iter().map(|w| format!("{} {}", w.file, w.value)).collect()
}

fn everything() -> Limits {
    Limits {
        physpages: Some(Pair { barrier: 0, limit: 65536 }),
        swappages: Some(Pair { barrier: 0, limit: 131_072 }),
        numproc: Some(Pair::both(240)),
        cpuunits: Some(1000),
        cpulimit: Some(250),
        cpuburst: None,
        cpus: Some(2),
        cpumask: Some(Selection::Only("0-2,9".parse().unwrap())),
        nodemask: Some(Selection::All),
        ioprio: Some(4),
        iolimit: Some(10 << 20),
        iopslimit: Some(0),
        disk: Some(Disk { major: 254, minor: 0 }),
        ..Limits::default()
    }
}

#[test]
fn everything_on_v2() {
    assert_eq!(
        lines(&everything(), &facts(Generation::V2)),
        [
            "memory.swap.max 536870912",
            "memory.max 268435456",
            "pids.max 240",
            "cpu.weight 100",
            "cpu.max 200000 100000",
            "cpuset.mems \n",
            "cpuset.cpus 0-2",
            "io.max 254:0 rbps=10485760 wbps=10485760",
            "io.max 254:0 riops=max wiops=max",
            "io.weight 100",
            "io.bfq.weight 100",
        ]
    );
}

#[test]
fn everything_on_v1() {
    assert_eq!(
        lines(&everything(), &facts(Generation::V1)),
        [
            "memory.limit_in_bytes 268435456",
            "memory.memsw.limit_in_bytes 805306368",
            "pids.max 240",
            "cpu.shares 1024",
            "cpu.cfs_period_us 100000",
            "cpu.cfs_quota_us 200000",
            "cpuset.mems 0-1",
            "cpuset.cpus 0-2",
            "blkio.throttle.read_bps_device 254:0 10485760",
            "blkio.throttle.write_bps_device 254:0 10485760",
            "blkio.throttle.read_iops_device 254:0 0",
            "blkio.throttle.write_iops_device 254:0 0",
            "blkio.bfq.weight 100",
            "blkio.weight 500",
        ]
    );
}

#[test]
fn nothing_set_nothing_written() {
    for generation in [Generation::V1, Generation::V2] {
        assert_eq!(LimitPlan::new(&Limits::default(), &facts(generation)).unwrap(), LimitPlan::default());
    }
}

#[test]
fn lifting_limits() {
    let limits = Limits {
        physpages: Some(Pair::UNLIMITED),
        swappages: Some(Pair::UNLIMITED),
        numproc: Some(Pair::UNLIMITED),
        cpulimit: Some(0),
        ..Limits::default()
    };
    assert_eq!(
        lines(&limits, &facts(Generation::V2)),
        ["memory.swap.max max", "memory.max max", "pids.max max", "cpu.max max 100000"]
    );
    let mut v1 = facts(Generation::V1);
    v1.memory_now = (1 << 20, Some(1 << 21));
    assert_eq!(
        lines(&limits, &v1)[..2],
        ["memory.memsw.limit_in_bytes -1".to_owned(), "memory.limit_in_bytes -1".to_owned()]
    );
}

#[test]
fn a_burst_is_no_more_than_the_cap_and_goes_before_it_shrinks() {
    let limits = Limits { cpulimit: Some(25), cpuburst: Some(40), ..Limits::default() };
    let mut facts = facts(Generation::V2);
    assert_eq!(lines(&limits, &facts), ["cpu.max 25000 100000", "cpu.max.burst 25000"]);
    facts.burst_now = 40_000;
    assert_eq!(lines(&limits, &facts), ["cpu.max.burst 0", "cpu.max 25000 100000", "cpu.max.burst 25000"]);
    let free = Limits { cpulimit: Some(0), ..limits };
    assert_eq!(lines(&free, &facts), ["cpu.max.burst 0", "cpu.max max 100000"]);
}

#[test]
fn cpuunits_keep_their_ratios() {
    for (units, v2, v1) in [
        (8, 1, 8),
        (10, 1, 10),
        (250, 25, 256),
        (1000, 100, 1024),
        (100_000, 10_000, 102_400),
        (500_000, 10_000, 262_144),
    ] {
        assert_eq!((weight(units), shares(units)), (v2, v1), "{units}");
    }
}

#[test]
fn a_mask_without_a_cpu_of_this_host_is_refused() {
    let limits = Limits { cpumask: Some(Selection::Only("8-9".parse().unwrap())), ..Limits::default() };
    let error = LimitPlan::new(&limits, &facts(Generation::V2)).unwrap_err();
    assert_eq!(error.to_string(), "bad CPUMASK \"8-9\": this host has 0-7");
    let auto = Limits { cpumask: Some(Selection::Auto), ..Limits::default() };
    assert_eq!(lines(&auto, &facts(Generation::V2)), ["cpuset.cpus 4-7"]);
}

#[test]
fn what_has_no_controller_is_reported() {
    let mut none = facts(Generation::V1);
    (none.cpu, none.cpuset, none.memory, none.pids, none.io) = (None, None, None, None, None);
    let plan = LimitPlan::new(&everything(), &none).unwrap();
    assert!(plan.writes.is_empty());
    let params: Vec<&str> = plan.unenforced.iter().map(|u| u.param.key()).collect();
    let want = "PHYSPAGES SWAPPAGES NUMPROC CPUUNITS CPULIMIT CPUMASK NODEMASK IOLIMIT IOPSLIMIT IOPRIO";
    assert_eq!(params.join(" "), want);
    let no_disk = Limits { disk: None, ..everything() };
    let plan = LimitPlan::new(&no_disk, &facts(Generation::V2)).unwrap();
    assert_eq!(plan.unenforced.len(), 1, "a limit of 0 is no limit");
    assert_eq!(plan.unenforced[0].param, Param::Iolimit);
}

proptest! {
    /// At no moment may the sum be less than RAM: the kernel would refuse the write.
    #[test]
    fn v1_memory_order_never_crosses(
        now_ram in 1u64..100, now_swap in 0u64..100,
        ram in proptest::option::of(prop_oneof![1u64..100, Just(UNLIMITED)]),
        swap in proptest::option::of(prop_oneof![0u64..100, Just(UNLIMITED)]),
    ) {
        let mut v1 = facts(Generation::V1);
        v1.memory_now = (now_ram * 4096, Some((now_ram + now_swap) * 4096));
        let limits = Limits {
            physpages: ram.map(Pair::both),
            swappages: swap.map(Pair::both),
            ..Limits::default()
        };
        let (mut limit, mut sum) = (v1.memory_now.0, v1.memory_now.1.unwrap());
        for write in LimitPlan::new(&limits, &v1).unwrap().writes {
            let value = write.value.parse().unwrap_or(u64::MAX);
            if write.file == "memory.limit_in_bytes" { limit = value } else { sum = value }
            prop_assert!(limit <= sum, "{limit} {sum}");
        }
        if let (Some(ram), Some(swap)) = (ram, swap) && ram < UNLIMITED && swap < UNLIMITED {
            prop_assert_eq!((limit, sum), (ram * 4096, (ram + swap) * 4096));
        }
    }
}
