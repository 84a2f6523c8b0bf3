// SPDX-License-Identifier: BSD-2-Clause

//! The client's side of the handshake.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{ClientError, Export};
use crate::proto::{
    self, BASE_ALLOCATION, ClientOption, Info, handshake, info, option, option_reply,
};
use crate::socket::Socket;
use crate::uri::{Place, Uri};

/// The time after which a receiving thread looks at its deadline.
const TICK: Duration = Duration::from_millis(250);

/// Bytes that a reply to an option may have.
const MAX_REPLY: u32 = 1 << 20;

fn words(error: impl std::fmt::Display) -> ClientError {
    ClientError(error.to_string())
}

/// Connects and agrees on terms, within `limit`. The socket's own time limits are set.
pub(super) fn connect(uri: &Uri, limit: Duration) -> Result<(Socket, Export), ClientError> {
    let now = Instant::now();
    let deadline = now.checked_add(limit).unwrap_or(now);
    let socket = match &uri.place {
        Place::Tcp(host, port) => tcp(host, *port, deadline)?,
        Place::Unix(path) => {
            let address = SocketAddrUnix::new(path).map_err(words)?;
            let kind = SocketType::STREAM;
            let fd = net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
            let fd = fd.map_err(words)?;
            let socket = Socket::from(fd);
            // A Unix socket's connect waits while the server's queue is full: this bounds it.
            socket.set_timeouts(Some(left(deadline)?)).map_err(words)?;
            net::connect(&socket, &address)
                .map_err(|e| ClientError(format!("{}: {e}", path.display())))?;
            socket
        }
    };
    socket.prepare();
    let mut talk = Talk { socket: &socket, deadline };
    let export = talk.agree(&uri.export)?;
    socket.set_timeouts(Some(TICK)).map_err(words)?;
    Ok((socket, export))
}

fn left(deadline: Instant) -> Result<Duration, ClientError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ClientError("it took too long".into())) } else { Ok(left) }
}

fn tcp(host: &str, port: u16, deadline: Instant) -> Result<Socket, ClientError> {
    let addresses = (host, port).to_socket_addrs();
    let addresses = addresses.map_err(|e| ClientError(format!("{host}: {e}")))?;
    let mut last = ClientError(format!("{host}: it has no address"));
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(Socket::from(OwnedFd::from(stream))),
            Err(error) => last = ClientError(format!("{address}: {error}")),
        }
    }
    Err(last)
}

struct Talk<'a> {
    socket: &'a Socket,
    deadline: Instant,
}

impl Talk<'_> {
    fn receive<const N: usize>(&mut self) -> Result<[u8; N], ClientError> {
        let mut bytes = [0; N];
        self.receive_into(&mut bytes)?;
        Ok(bytes)
    }

    fn receive_into(&mut self, mut to: &mut [u8]) -> Result<(), ClientError> {
        while !to.is_empty() {
            self.socket.set_timeouts(Some(left(self.deadline)?)).map_err(words)?;
            match self.socket.receive(to) {
                Ok(0) => return Err(ClientError("the server hung up".into())),
                Ok(got) => to = to.get_mut(got..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(words(error)),
            }
        }
        Ok(())
    }

    fn ask(&mut self, what: &ClientOption) -> Result<u32, ClientError> {
        let (number, data) = what.encode();
        let mut bytes = proto::OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.socket.send(&bytes, &[]).map_err(words)?;
        Ok(number)
    }

    /// Receives the reply to an option: its kind and its data.
    fn reply(&mut self, asked: u32) -> Result<(u32, Vec<u8>), ClientError> {
        let header = self.receive()?;
        let (number, kind, length) = proto::parse_option_reply(&header)
            .filter(|(number, _, length)| *number == asked && *length <= MAX_REPLY)
            .ok_or_else(|| ClientError("it does not speak NBD as it should".into()))?;
        debug_assert_eq!(number, asked);
        let mut data = vec![0; length as usize];
        self.receive_into(&mut data)?;
        Ok((kind, data))
    }

    /// Sends an option that may be refused.
    fn may(&mut self, what: &ClientOption) -> Result<Option<Vec<Vec<u8>>>, ClientError> {
        let number = self.ask(what)?;
        let mut all = Vec::new();
        loop {
            match self.reply(number)? {
                (option_reply::ACK, _) => return Ok(Some(all)),
                (kind, _) if option_reply::is_error(kind) => return Ok(None),
                (_, data) => all.push(data),
            }
        }
    }

    fn agree(&mut self, name: &str) -> Result<Export, ClientError> {
        let magic = u64::from_be_bytes(self.receive()?);
        let second = u64::from_be_bytes(self.receive()?);
        if magic != proto::MAGIC || second != proto::OPTION_MAGIC {
            return Err(ClientError("it does not speak NBD, or only its oldest form".into()));
        }
        let theirs = u16::from_be_bytes(self.receive()?);
        let fixed = theirs & handshake::FIXED_NEWSTYLE != 0;
        let ours = theirs & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        self.socket.send(&u32::from(ours).to_be_bytes(), &[]).map_err(words)?;
        let mut export = Export {
            size: 0,
            flags: 0,
            blocks: (1, 4096, proto::MAX_REQUEST),
            structured: false,
            holes: None,
        };
        if fixed {
            export.structured = self.may(&ClientOption::StructuredReply)?.is_some();
            if export.structured {
                let query = vec![BASE_ALLOCATION.to_string()];
                let contexts = self.may(&ClientOption::SetMeta(name.into(), query))?;
                let contexts = contexts.unwrap_or_default();
                export.holes = contexts.iter().find_map(|data| {
                    let (number, name) = data.split_first_chunk::<4>()?;
                    (name == BASE_ALLOCATION.as_bytes()).then(|| u32::from_be_bytes(*number))
                });
            }
            if self.go(name, &mut export)? {
                return Ok(export);
            }
        }
        // A server that does not know NBD_OPT_GO.
        self.ask(&ClientOption::ExportName(name.into()))?;
        export.size = u64::from_be_bytes(self.receive()?);
        export.flags = u16::from_be_bytes(self.receive()?);
        if ours & handshake::NO_ZEROES == 0 {
            self.receive::<124>()?;
        }
        Ok(export)
    }

    /// Sends NBD_OPT_GO. `false` if the server does not know the option.
    fn go(&mut self, name: &str, export: &mut Export) -> Result<bool, ClientError> {
        let number = self.ask(&ClientOption::Go(name.into(), vec![info::BLOCK_SIZE]))?;
        loop {
            match self.reply(number)? {
                (option_reply::ACK, _) => return Ok(true),
                (option_reply::UNSUPPORTED, _) => return Ok(false),
                (option_reply::INFO, data) => match Info::parse(&data) {
                    Some(Info::Export(size, flags)) => (export.size, export.flags) = (size, flags),
                    Some(Info::BlockSize(least, best, largest)) => {
                        // A size that is no power of two is nonsense; 64 KiB is the most that it may be.
                        let least = if least.is_power_of_two() { least } else { 1 };
                        export.blocks = (least, best, largest.max(least));
                    }
                    Some(Info::Other) => {}
                    None => return Err(ClientError("its reply is malformed".into())),
                },
                (kind, data) if option_reply::is_error(kind) => {
                    let said = String::from_utf8_lossy(&data).into_owned();
                    let said = if said.is_empty() { "no reason given".into() } else { said };
                    let what = match kind {
                        option_reply::UNKNOWN => format!("there is no export `{name}`"),
                        _ => format!("the server refuses the export `{name}`"),
                    };
                    return Err(ClientError(format!("{what} ({said})")));
                }
                _ => return Err(ClientError(format!("an odd reply to option {}", option::GO))),
            }
        }
    }
}
