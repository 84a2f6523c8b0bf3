// SPDX-License-Identifier: BSD-2-Clause

//! The server's side of the handshake: the terms that are agreed on before the first request.

use std::io;
use std::time::Duration;

use crate::export::{Description, Exports, Refusal};
use crate::proto::{
    self, BASE_ALLOCATION, BASE_ALLOCATION_ID, ClientOption, Info, Terms, can, handshake,
    option_reply,
};
use crate::socket::Socket;

/// The most time that a client may take for the next step of the handshake.
const PATIENCE: Duration = Duration::from_secs(120);

/// Options that a client may send; after so many it is no client.
const OPTIONS: usize = 10_000;

/// The transmission flags of an export.
pub fn flags(description: &Description, structured: bool) -> u16 {
    let mut flags = can::HAS_FLAGS | can::FLUSH | can::FUA | can::MULTI_CONN | can::CACHE;
    flags |= if description.writable {
        can::TRIM | can::WRITE_ZEROES | can::FAST_ZERO
    } else {
        can::READ_ONLY
    };
    flags | if structured { can::DF } else { 0 }
}

/// The terms that have been agreed on so far.
#[derive(Default)]
struct Agreed {
    no_zeroes: bool,
    structured: bool,
    /// The export for which holes may be asked for.
    meta: Option<String>,
}

/// Does the handshake. The answer is the export that the client chose; `None` for a client that goes.
///
/// # Errors
/// Those of the socket.
pub(crate) fn haggle<E: Exports>(
    socket: &Socket,
    exports: &E,
) -> io::Result<Option<(E::Device, Terms)>> {
    socket.set_timeouts(Some(PATIENCE))?;
    let mut hello = proto::MAGIC.to_be_bytes().to_vec();
    hello.extend(proto::OPTION_MAGIC.to_be_bytes());
    hello.extend((handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES).to_be_bytes());
    socket.send(&hello, &[])?;
    let mut theirs = [0; 4];
    socket.receive_exact(&mut theirs)?;
    let theirs = u32::from_be_bytes(theirs);
    if theirs & !u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES) != 0 {
        return Ok(None);
    }
    let no_zeroes = theirs & u32::from(handshake::NO_ZEROES) != 0;
    let mut agreed = Agreed { no_zeroes, ..Agreed::default() };
    for _ in 0..OPTIONS {
        let mut header = [0; proto::OPTION];
        socket.receive_exact(&mut header)?;
        let Some((number, length)) = proto::parse_option_header(&header) else { return Ok(None) };
        if length > proto::MAX_OPTION {
            // A client that sends much more than an option can be is not waited for.
            if length > proto::MAX_REQUEST {
                return Ok(None);
            }
            skip(socket, length)?;
            socket.send(&proto::option_reply(number, option_reply::TOO_BIG, b""), &[])?;
            continue;
        }
        let mut data = vec![0; length as usize];
        socket.receive_exact(&mut data)?;
        let option = ClientOption::parse(number, &data);
        match answer(socket, exports, number, option, &mut agreed)? {
            Next::Another => {}
            Next::Gone => return Ok(None),
            Next::Chosen(device, terms) => {
                socket.set_timeouts(None)?;
                return Ok(Some((device, terms)));
            }
        }
    }
    Ok(None)
}

enum Next<D> {
    Another,
    Gone,
    Chosen(D, Terms),
}

fn answer<E: Exports>(
    socket: &Socket,
    exports: &E,
    number: u32,
    option: ClientOption,
    agreed: &mut Agreed,
) -> io::Result<Next<E::Device>> {
    let say = |kind: u32, data: &[u8]| socket.send(&proto::option_reply(number, kind, data), &[]);
    match option {
        ClientOption::ExportName(name) => {
            // This option has no way to say no.
            let Ok((device, description)) = exports.open(&name) else { return Ok(Next::Gone) };
            let mut reply = description.size.to_be_bytes().to_vec();
            reply.extend(flags(&description, agreed.structured).to_be_bytes());
            reply.resize(reply.len() + if agreed.no_zeroes { 0 } else { 124 }, 0);
            socket.send(&reply, &[])?;
            return Ok(Next::Chosen(device, agreed.terms(&name, &description)));
        }
        ClientOption::Abort => {
            // The client may be gone already, as it may.
            let _ = say(option_reply::ACK, &[]);
            return Ok(Next::Gone);
        }
        ClientOption::List => match exports.names() {
            Ok(names) => {
                let mut replies = Vec::new();
                for name in names {
                    let mut data = (name.len() as u32).to_be_bytes().to_vec();
                    data.extend(name.as_bytes());
                    replies.extend(proto::option_reply(number, option_reply::SERVER, &data));
                }
                replies.extend(proto::option_reply(number, option_reply::ACK, &[]));
                socket.send(&replies, &[])?;
            }
            Err(refusal) => say(option_reply::POLICY, refusal.text.as_bytes())?,
        },
        ClientOption::Info(name, _) => match exports.describe(&name) {
            Ok(description) => tell(socket, number, &description, agreed.structured)?,
            Err(refusal) => refuse(&refusal, say)?,
        },
        ClientOption::Go(name, _) => match exports.open(&name) {
            Ok((device, description)) => {
                tell(socket, number, &description, agreed.structured)?;
                return Ok(Next::Chosen(device, agreed.terms(&name, &description)));
            }
            Err(refusal) => refuse(&refusal, say)?,
        },
        ClientOption::StructuredReply => {
            agreed.structured = true;
            say(option_reply::ACK, &[])?;
        }
        ClientOption::ListMeta(name, queries) => match exports.describe(&name) {
            Ok(_) => {
                let all = queries.is_empty() || queries.iter().any(|query| query == "base:");
                if all || queries.iter().any(|query| query == BASE_ALLOCATION) {
                    say(option_reply::META_CONTEXT, &context(0))?;
                }
                say(option_reply::ACK, &[])?;
            }
            Err(refusal) => refuse(&refusal, say)?,
        },
        ClientOption::SetMeta(..) if !agreed.structured => say(option_reply::INVALID, &[])?,
        ClientOption::SetMeta(name, queries) => {
            agreed.meta = None;
            match exports.describe(&name) {
                Ok(_) => {
                    if queries.iter().any(|query| query == BASE_ALLOCATION) {
                        agreed.meta = Some(name);
                        say(option_reply::META_CONTEXT, &context(BASE_ALLOCATION_ID))?;
                    }
                    say(option_reply::ACK, &[])?;
                }
                Err(refusal) => refuse(&refusal, say)?,
            }
        }
        ClientOption::Unknown => say(option_reply::UNSUPPORTED, &[])?,
        ClientOption::Malformed => say(option_reply::INVALID, b"malformed")?,
    }
    Ok(Next::Another)
}

impl Agreed {
    fn terms(&self, name: &str, description: &Description) -> Terms {
        Terms {
            size: description.size,
            writable: description.writable,
            structured: self.structured,
            block_status: self.structured && self.meta.as_deref() == Some(name),
        }
    }
}

/// A metadata context's number and name.
fn context(number: u32) -> Vec<u8> {
    let mut data = number.to_be_bytes().to_vec();
    data.extend(BASE_ALLOCATION.as_bytes());
    data
}

fn refuse(refusal: &Refusal, say: impl Fn(u32, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let kind = if refusal.unknown { option_reply::UNKNOWN } else { option_reply::POLICY };
    say(kind, refusal.text.as_bytes())
}

/// Sends all replies about an export, asked for or not, and the acknowledgement.
fn tell(
    socket: &Socket,
    number: u32,
    description: &Description,
    structured: bool,
) -> io::Result<()> {
    let sizes = Info::BlockSize(description.least, description.best, proto::MAX_REQUEST);
    let export = Info::Export(description.size, flags(description, structured));
    let mut replies = Vec::new();
    for info in [sizes, export] {
        replies.extend(proto::option_reply(number, option_reply::INFO, &info.encode()));
    }
    replies.extend(proto::option_reply(number, option_reply::ACK, &[]));
    socket.send(&replies, &[])
}

fn skip(socket: &Socket, length: u32) -> io::Result<()> {
    let mut sink = [0; 4096];
    let mut left = length as usize;
    while left > 0 {
        let count = left.min(sink.len());
        socket.receive_exact(sink.get_mut(..count).unwrap_or_default())?;
        left = left.saturating_sub(count);
    }
    Ok(())
}
