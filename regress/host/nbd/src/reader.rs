// SPDX-License-Identifier: BSD-2-Clause

//! The receiving half of a connection, with a buffer for bytes that came early.

use std::io;
use std::sync::Arc;

use crate::proto::{REQUEST, RawRequest};
use crate::socket::Socket;

/// Bytes that are received ahead: many small requests with one system call, and little to copy
/// of a large one.
const AHEAD: usize = 32 << 10;

/// The receiving half of a connection. Its owner receives.
pub(crate) struct Reader {
    socket: Arc<Socket>,
    ahead: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Reader {
    pub(crate) fn new(socket: Arc<Socket>) -> Reader {
        Reader { socket, ahead: vec![0; AHEAD].into_boxed_slice(), start: 0, end: 0 }
    }

    fn waiting(&self) -> &[u8] {
        self.ahead.get(self.start..self.end).unwrap_or_default()
    }

    /// The next request. `None` at the end of the connection, and for bytes that are no request.
    pub(crate) fn request(&mut self) -> io::Result<Option<RawRequest>> {
        while self.end.saturating_sub(self.start) < REQUEST {
            if self.start > 0 {
                self.ahead.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end.saturating_sub(self.start));
            }
            let got = self.socket.receive(self.ahead.get_mut(self.end..).unwrap_or_default())?;
            if got == 0 {
                return Ok(None);
            }
            self.end = self.end.saturating_add(got);
        }
        let Some(bytes) = self.waiting().first_chunk::<REQUEST>() else { return Ok(None) };
        let request = RawRequest::parse(bytes);
        self.start = self.start.saturating_add(REQUEST);
        Ok(request)
    }

    /// `true` if a request has been received ahead with all that belongs to it: then the next one
    /// costs no wait.
    pub(crate) fn has_request(&self) -> bool {
        let waiting = self.waiting();
        let request = waiting.first_chunk().and_then(RawRequest::parse);
        request.is_some_and(|request| {
            waiting.len().saturating_sub(REQUEST) as u64 >= u64::from(request.payload())
        })
    }

    /// Receives a payload, or a part of it.
    pub(crate) fn payload(&mut self, to: &mut [u8]) -> io::Result<()> {
        let have = self.waiting();
        let count = have.len().min(to.len());
        let (first, rest) = to.split_at_mut(count);
        first.copy_from_slice(have.get(..count).unwrap_or_default());
        self.start = self.start.saturating_add(count);
        self.socket.receive_exact(rest)
    }

    /// Receives a payload and forgets it.
    pub(crate) fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut sink = [0; 4096];
        while bytes > 0 {
            let count = usize::try_from(bytes).unwrap_or(usize::MAX).min(sink.len());
            self.payload(sink.get_mut(..count).unwrap_or_default())?;
            bytes = bytes.saturating_sub(count as u64);
        }
        Ok(())
    }
}
