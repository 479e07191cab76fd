//! Programs in the kernel for a cgroup v2, assembled here without a compiler: which devices it may open, how many
//! sockets it may have.

mod calls;
mod devices;
mod insn;
mod sockets;

pub use devices::{DeviceClass, DeviceEntry, MKNOD, READ, WRITE, restrict_devices};
pub use sockets::{Kind, SocketGate, Tally};
