// SPDX-License-Identifier: BSD-2-Clause

//! A connected socket, Unix or TCP, used by several threads at once.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};

use crate::handoff::about_to_block;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket(fd)
    }
}

impl Socket {
    /// Receives some bytes, waiting for them if `wait`; 0 at the end.
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match net::recv(&self.0, &mut *buf, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?.0),
            }
        }
    }

    /// Receives exactly so many bytes.
    pub(crate) fn receive_exact(&self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let got = self.receive(buf)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = buf.get_mut(got..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends all of both, in this order. Says [`about_to_block`] before it waits.
    pub(crate) fn send(&self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let all = head.len().saturating_add(body.len());
        let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut done = 0;
        while done < all {
            let slices = [
                IoSlice::new(head.get(done..).unwrap_or_default()),
                IoSlice::new(body.get(done.saturating_sub(head.len())..).unwrap_or_default()),
            ];
            let mut nothing = SendAncillaryBuffer::default();
            match net::sendmsg(&self.0, &slices, &mut nothing, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => done = done.saturating_add(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if flags.contains(SendFlags::DONTWAIT) => {
                    about_to_block();
                    flags = SendFlags::NOSIGNAL;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sets the socket's options: small requests do not wait for each other (TCP), and a peer that is gone is
    /// noticed.
    pub(crate) fn prepare(&self) {
        // A Unix socket has no such options: then there is nothing to set.
        let _ = sockopt::set_tcp_nodelay(&self.0, true);
        let _ = sockopt::set_socket_keepalive(&self.0, true);
    }

    /// Limits how long one receive and one send may take; `None` for ever.
    pub(crate) fn set_timeouts(&self, limit: Option<Duration>) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, limit)?;
        Ok(sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, limit)?)
    }

    /// Stops receiving. Bytes that have arrived are still received.
    pub(crate) fn stop_receiving(&self) {
        // A socket that is gone already needs no end.
        let _ = net::shutdown(&self.0, Shutdown::Read);
    }

    /// Ends both directions. Threads that wait at the socket stop waiting.
    pub(crate) fn cut(&self) {
        let _ = net::shutdown(&self.0, Shutdown::Both);
    }
}
