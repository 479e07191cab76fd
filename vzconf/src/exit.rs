//! The exit codes of every command.

macro_rules! exits {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// What a command exits with. The numbers are an interface: scripts and panels test them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Exit {
            $(#[doc = $text] $name = $code,)*
        }

        impl Exit {
            /// Every code, in order.
            pub const ALL: &'static [Exit] = &[$(Exit::$name,)*];

            /// The meaning in a few words, for tables in help and manual.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Exit::$name => $text,)* }
            }
        }
    };
}

exits! {
    Ok = 0, "success";
    SetUbc = 1, "a beancounter could not be set";
    SetFshd = 2, "a CPU scheduler parameter could not be set";
    System = 3, "generic system error";
    BadKernel = 5, "the kernel lacks what is needed";
    Resource = 6, "not enough system resources";
    EnvCreate = 7, "the environment could not be created";
    CommandExecution = 8, "a command of `exec` returned non-zero";
    Locked = 9, "the VE is locked by another command";
    NoConfig = 10, "vz.conf not found or unreadable";
    NoScript = 11, "helper script or script file not found";
    NoAccess = 12, "permission denied";
    SetCap = 13, "capabilities could not be set";
    NoVeConfig = 14, "the VE's config file not found";
    ExecTimeout = 15, "a script in the VE ran out of time";
    Chkpnt = 16, "checkpoint failed";
    Restore = 17, "restore failed";
    SetLuid = 18, "setluid failed";
    InvalidSyntax = 20, "bad command line";
    InvalidValue = 21, "bad value or bad CTID";
    VeRootNotSet = 22, "VE_ROOT not set";
    VePrivateNotSet = 23, "VE_PRIVATE not set";
    VeTmplNotSet = 24, "TEMPLATE not set";
    NotEnoughParams = 27, "a parameter is missing";
    NotEnoughUbcParams = 28, "a mandatory beancounter is missing";
    VeOstemplateNotSet = 29, "no OS template given";
    VeNotRunning = 31, "the VE is not running";
    VeRunning = 32, "the VE is running";
    Stop = 33, "the VE could not be stopped";
    CantAddIp = 34, "an address or route could not be added";
    Validate = 35, "the config does not hold together";
    Overcommit = 36, "the node would be overcommitted";
    FsNotMounted = 40, "the VE is not mounted";
    FsMounted = 41, "the VE is mounted";
    FsNoPrvt = 43, "private area not found";
    FsPrvtAreaExist = 44, "private area exists already";
    FsNoDiskSpace = 46, "not enough disk space";
    FsBadTmpl = 47, "no init or no shell in the template";
    FsNewVePrvt = 48, "the private area could not be created";
    FsMpointCreate = 49, "the root mount point could not be created";
    FsCantMount = 50, "the root could not be mounted";
    FsCantUmount = 51, "the root could not be unmounted";
    FsDelPrvt = 52, "the private area could not be deleted";
    UnkMountType = 53, "unknown mount type";
    CantCreateDir = 54, "a directory could not be created";
    NotEnoughQuotaLimits = 55, "a quota limit is missing";
    DqOn = 60, "quota could not be switched on";
    DqInit = 61, "quota could not be initialised";
    DqSet = 62, "a quota limit could not be set";
    DiskspaceNotSet = 63, "DISKSPACE not set";
    DiskinodesNotSet = 64, "DISKINODES not set";
    ErrorSetUserQuota = 65, "quota inside the VE failed";
    DqOff = 66, "quota could not be switched off";
    DqUgidNotInitialized = 67, "per-user quota not initialised";
    GetQuotaUsage = 68, "quota usage could not be read";
    BadHostname = 70, "bad host name";
    BadIp = 71, "bad IP address";
    BadDnsSrv = 72, "bad name server";
    BadDnsSearch = 73, "bad search domain";
    ChangePass = 74, "the password could not be changed";
    VeLckdirNotSet = 77, "LOCKDIR not set";
    IpInUse = 78, "the IP address is in use";
    ActionScript = 79, "an action, distribution or create script failed";
    CpConfig = 82, "the sample config is missing or could not be copied";
    InvalidConfig = 85, "invalid config";
    SetDevices = 86, "devices could not be set up";
    InstallApps = 87, "applications could not be installed";
    IpNa = 89, "the IP address is not available";
    OstemplateNotFound = 91, "OS template not found";
    PloopUnsup = 99, "ploop is not supported here";
    GetIp = 100, "the VE's addresses could not be read";
    Netdev = 104, "a network device could not be moved";
    VeStartDisabled = 105, "start is disabled";
    SetIptables = 106, "packet filter modules could not be set";
    NoDistrConf = 107, "no distribution config";
    NoDistrActionScript = 108, "no distribution action script";
    ApplyConfig = 109, "a sample could not be applied";
    CustomReinstall = 128, "a custom reinstall script failed";
    SetMeminfo = 129, "meminfo could not be set";
    Veth = 130, "a veth device could not be set up";
    SetName = 131, "the name could not be set";
    WaitFailed = 133, "waiting for the start failed";
    ConfigSave = 139, "the config could not be saved";
    SetOsrelease = 144, "the release string could not be set";
    SetIo = 148, "an I/O limit could not be set";
    PloopImageNotFound = 150, "image file not found";
    CreateImage = 151, "an image could not be created";
    MountImage = 152, "an image could not be mounted";
    UmountImage = 153, "an image could not be unmounted";
    ResizeImage = 154, "an image could not be resized";
    ConvertImage = 155, "an image could not be converted";
    CreateSnapshot = 156, "a snapshot could not be created";
    MergeSnapshot = 157, "a snapshot could not be merged";
    DeleteSnapshot = 158, "a snapshot could not be deleted";
    SwitchSnapshot = 159, "a snapshot could not be switched to";
    MountSnapshot = 160, "a snapshot could not be mounted";
    UmountSnapshot = 161, "a snapshot could not be unmounted";
    CompactImage = 166, "an image could not be compacted";
    ListSnapshot = 167, "the snapshots could not be listed";
}

impl Exit {
    /// The process exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_ordered() {
        assert!(Exit::ALL.windows(2).all(|w| w[0].code() < w[1].code()));
        for (exit, code) in [
            (Exit::System, 3),
            (Exit::Locked, 9),
            (Exit::InvalidSyntax, 20),
            (Exit::InvalidValue, 21),
            (Exit::VeNotRunning, 31),
            (Exit::SetName, 131),
            (Exit::ListSnapshot, 167),
        ] {
            assert_eq!(exit.code(), code);
        }
    }
}
