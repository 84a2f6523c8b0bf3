// SPDX-License-Identifier: BSD-2-Clause

//! The handshake: options, and the replies to them.

use super::{Fields, OPTION, OPTION_MAGIC, OPTION_REPLY, OPTION_REPLY_MAGIC, info, name, option};

/// An option's header: its number, and the bytes that follow. `None` if it is none.
pub fn parse_option_header(header: &[u8; OPTION]) -> Option<(u32, u32)> {
    let mut fields = Fields(header);
    (fields.u64()? == OPTION_MAGIC).then_some(())?;
    Some((fields.u32()?, fields.u32()?))
}

/// A client's option, sent before it uses an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientOption {
    /// NBD_OPT_EXPORT_NAME: use this export, without negotiation.
    ExportName(String),
    /// NBD_OPT_ABORT
    Abort,
    /// NBD_OPT_LIST
    List,
    /// NBD_OPT_INFO: the export, and the information that is asked for.
    Info(String, Vec<u16>),
    /// NBD_OPT_GO: as `Info`, and then to use it.
    Go(String, Vec<u16>),
    /// NBD_OPT_STRUCTURED_REPLY
    StructuredReply,
    /// NBD_OPT_LIST_META_CONTEXT: the export and the queries.
    ListMeta(String, Vec<String>),
    /// NBD_OPT_SET_META_CONTEXT
    SetMeta(String, Vec<String>),
    /// An option that this server does not have.
    Unknown,
    /// A known option, with malformed data.
    Malformed,
}

impl ClientOption {
    /// Takes an option's data apart.
    pub fn parse(number: u32, data: &[u8]) -> ClientOption {
        let empty = |this| if data.is_empty() { this } else { ClientOption::Malformed };
        let parsed = match number {
            option::EXPORT_NAME => name(data).map(ClientOption::ExportName),
            option::ABORT => Some(ClientOption::Abort),
            option::LIST => Some(empty(ClientOption::List)),
            option::STRUCTURED_REPLY => Some(empty(ClientOption::StructuredReply)),
            option::INFO => parse_info(data).map(|(name, what)| ClientOption::Info(name, what)),
            option::GO => parse_info(data).map(|(name, what)| ClientOption::Go(name, what)),
            option::LIST_META_CONTEXT => {
                parse_meta(data).map(|(name, queries)| ClientOption::ListMeta(name, queries))
            }
            option::SET_META_CONTEXT => {
                parse_meta(data).map(|(name, queries)| ClientOption::SetMeta(name, queries))
            }
            _ => Some(ClientOption::Unknown),
        };
        parsed.unwrap_or(ClientOption::Malformed)
    }

    /// The option's number and its data, as a client sends them. [`ClientOption::Unknown`] and
    /// [`ClientOption::Malformed`] give those of an abort.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        let named = |name: &str| {
            let mut data = (name.len() as u32).to_be_bytes().to_vec();
            data.extend(name.as_bytes());
            data
        };
        let info = |name: &str, what: &[u16]| {
            let mut data = named(name);
            data.extend((what.len() as u16).to_be_bytes());
            what.iter().for_each(|kind| data.extend(kind.to_be_bytes()));
            data
        };
        let meta = |name: &str, queries: &[String]| {
            let mut data = named(name);
            data.extend((queries.len() as u32).to_be_bytes());
            queries.iter().for_each(|query| data.extend(named(query)));
            data
        };
        match self {
            ClientOption::ExportName(name) => (option::EXPORT_NAME, name.clone().into_bytes()),
            ClientOption::List => (option::LIST, Vec::new()),
            ClientOption::Info(name, what) => (option::INFO, info(name, what)),
            ClientOption::Go(name, what) => (option::GO, info(name, what)),
            ClientOption::StructuredReply => (option::STRUCTURED_REPLY, Vec::new()),
            ClientOption::ListMeta(name, q) => (option::LIST_META_CONTEXT, meta(name, q)),
            ClientOption::SetMeta(name, q) => (option::SET_META_CONTEXT, meta(name, q)),
            ClientOption::Abort | ClientOption::Unknown | ClientOption::Malformed => {
                (option::ABORT, Vec::new())
            }
        }
    }
}

fn parse_info(data: &[u8]) -> Option<(String, Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.name()?;
    let count = usize::from(fields.u16()?);
    (fields.0.len() == count.checked_mul(2)?).then_some(())?;
    let what = std::iter::from_fn(|| fields.u16()).collect();
    Some((name, what))
}

fn parse_meta(data: &[u8]) -> Option<(String, Vec<String>)> {
    let mut fields = Fields(data);
    let name = fields.name()?;
    let mut queries = Vec::new();
    for _ in 0..fields.u32()? {
        queries.push(fields.name()?);
    }
    fields.0.is_empty().then_some((name, queries))
}

/// A reply to an option: its header and its data.
pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Takes the header of a reply to an option apart: the option, the kind, the bytes that follow.
pub fn parse_option_reply(bytes: &[u8; OPTION_REPLY]) -> Option<(u32, u32, u32)> {
    let mut fields = Fields(bytes);
    (fields.u64()? == OPTION_REPLY_MAGIC).then_some(())?;
    Some((fields.u32()?, fields.u32()?, fields.u32()?))
}

/// The content of an option's reply of kind [`INFO`](super::option_reply::INFO).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Info {
    /// Size in bytes and transmission flags, `can::*`.
    Export(u64, u16),
    /// Least, best and largest size of a request in bytes.
    BlockSize(u32, u32, u32),
    /// Information of another kind.
    Other,
}

impl Info {
    /// Parses the information. `None` if it is malformed.
    pub fn parse(data: &[u8]) -> Option<Info> {
        let mut fields = Fields(data);
        Some(match fields.u16()? {
            info::EXPORT => Info::Export(fields.u64()?, fields.u16()?),
            info::BLOCK_SIZE => Info::BlockSize(fields.u32()?, fields.u32()?, fields.u32()?),
            _ => Info::Other,
        })
    }

    /// The information as a server sends it. That of [`Info::Other`] is empty.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        match self {
            Info::Export(size, flags) => {
                data.extend(info::EXPORT.to_be_bytes());
                data.extend(size.to_be_bytes());
                data.extend(flags.to_be_bytes());
            }
            Info::BlockSize(least, best, largest) => {
                data.extend(info::BLOCK_SIZE.to_be_bytes());
                [least, best, largest].iter().for_each(|n| data.extend(n.to_be_bytes()));
            }
            Info::Other => {}
        }
        data
    }
}
