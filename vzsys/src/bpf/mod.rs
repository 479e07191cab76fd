//! Programs in the kernel for a cgroup v2, assembled here without a compiler: which devices it may open, how many
//! sockets it may have, which limit it may not change.

mod calls;
mod devices;
mod insn;
mod socket_programs;
mod sockets;
mod sysctl;

pub use calls::is_loaded;
pub use devices::{DeviceClass, DeviceEntry, MKNOD, READ, WRITE, restrict_devices};
pub use sockets::{Kind, SocketGate, Tally};
pub use sysctl::hold_shmall;
