//! The UDP socket under the transport.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Why a transport could not take its address.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process (or another transport of this one) has the port.
    #[error("{addr} is in use; stop the process that listens there or choose another port")]
    InUse {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error("{addr} is not an address of this machine; listen on one of its own addresses, or on 0.0.0.0 or [::]")]
    NotLocal {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The process may not bind there (ports below 1024).
    #[error("{addr} may not be bound by this process; choose a port of 1024 or above")]
    Denied {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The credentials are a client's; only a node accepts connections.
    #[error("{addr}: the credentials are those of client {principal:?}; a node listens with a node's certificate")]
    NotANode {
        /// The address that was asked for.
        addr: SocketAddr,
        /// Whom the credentials name.
        principal: String,
    },
    /// The system refused for another reason.
    #[error("{addr}: no socket ({source})")]
    System {
        /// The address that was asked for.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// Binds `addr`. An IPv6 socket takes IPv4 peers as well.
pub(super) fn bind_udp(addr: SocketAddr, buffer_bytes: usize) -> Result<UdpSocket, BindError> {
    let socket = open(addr).map_err(|errno| match errno {
        Errno::ADDRINUSE => BindError::InUse { addr },
        Errno::ADDRNOTAVAIL => BindError::NotLocal { addr },
        Errno::ACCESS | Errno::PERM => BindError::Denied { addr },
        other => BindError::System { addr, source: other.into() },
    })?;
    enlarge_buffers(&socket, buffer_bytes);
    Ok(UdpSocket::from(socket))
}

/// Binds any free port, for IPv6 and IPv4 peers if the machine speaks both.
pub(super) fn bind_any(buffer_bytes: usize) -> Result<UdpSocket, BindError> {
    bind_udp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), buffer_bytes)
        .or_else(|_no_ipv6| bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), buffer_bytes))
}

fn open(addr: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if addr.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &addr)?;
    Ok(socket)
}

/// Asks for large buffers: past the system's limit if the process may, else up to it. A small buffer loses packets when
/// many answers come at once, and QUIC takes that for congestion.
fn enlarge_buffers(socket: &OwnedFd, bytes: usize) {
    // Both fail only for want of permission or of size; what was granted is read below.
    let _receive = sockopt::set_socket_recv_buffer_size_force(socket, bytes)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, bytes));
    let _send = sockopt::set_socket_send_buffer_size_force(socket, bytes)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, bytes));
    // Linux reports twice what it grants, for its own bookkeeping.
    let receive = sockopt::socket_recv_buffer_size(socket).unwrap_or(0) / 2;
    let send = sockopt::socket_send_buffer_size(socket).unwrap_or(0) / 2;
    if receive < bytes || send < bytes {
        tracing::warn!(
            asked = bytes,
            receive,
            send,
            "the socket's buffers are smaller than asked for; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
}
