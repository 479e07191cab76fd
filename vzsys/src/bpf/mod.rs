//! Programs in the kernel, assembled here without a compiler. For a cgroup v2: which devices it may open, how many
//! sockets it may have, which limit it may not change. For the host: how many files VEs have open.

mod btf;
mod calls;
mod devices;
mod file_programs;
mod files;
mod insn;
mod objects;
mod socket_programs;
mod sockets;
mod sysctl;

pub use calls::is_loaded;
pub use devices::{DeviceClass, DeviceEntry, MKNOD, READ, WRITE, restrict_devices};
pub use files::FileGate;
pub use sockets::{Kind, SocketGate, Tally};
pub use sysctl::hold_shmall;
