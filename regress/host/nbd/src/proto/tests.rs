// SPDX-License-Identifier: BSD-2-Clause

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z:/ ]{0,20}", 0..5)
}

fn options() -> impl Strategy<Value = ClientOption> {
    let name = || "[a-zA-Z0-9 /._-]{0,40}";
    prop_oneof![
        name().prop_map(ClientOption::ExportName),
        Just(ClientOption::Abort),
        Just(ClientOption::List),
        Just(ClientOption::StructuredReply),
        (name(), vec(any::<u16>(), 0..9)).prop_map(|(n, what)| ClientOption::Info(n, what)),
        (name(), vec(any::<u16>(), 0..9)).prop_map(|(n, what)| ClientOption::Go(n, what)),
        (name(), texts()).prop_map(|(n, queries)| ClientOption::ListMeta(n, queries)),
        (name(), texts()).prop_map(|(n, queries)| ClientOption::SetMeta(n, queries)),
    ]
}

fn requests() -> impl Strategy<Value = RawRequest> {
    let near = prop_oneof![0..5000u64, any::<u64>()];
    let length = prop_oneof![0..5000u32, any::<u32>()];
    (0..32u16, 0..10u16, any::<u64>(), near, length).prop_map(
        |(flags, kind, cookie, offset, length)| RawRequest { flags, kind, cookie, offset, length },
    )
}

proptest! {
    #[test]
    fn options_come_back(option in options()) {
        let (number, data) = option.encode();
        prop_assert_eq!(ClientOption::parse(number, &data), option);
    }

    #[test]
    fn no_option_but_its_own(number in 0..16u32, data in vec(any::<u8>(), 0..200)) {
        match ClientOption::parse(number, &data) {
            ClientOption::Unknown | ClientOption::Malformed => {}
            // An abort's data mean nothing.
            ClientOption::Abort => prop_assert_eq!(number, option::ABORT),
            understood => prop_assert_eq!(understood.encode(), (number, data)),
        }
    }

    /// Lengths that lie: any field of an option's data changed, or its end cut off.
    #[test]
    fn changed_options_are_something_else(option in options(), at in any::<u16>(), with in any::<u8>(), cut in any::<bool>()) {
        let (number, mut data) = option.encode();
        let place = usize::from(at) % data.len().max(1);
        if cut {
            data.truncate(place);
        } else if let Some(byte) = data.get_mut(place) {
            *byte = with;
        }
        match ClientOption::parse(number, &data) {
            ClientOption::Unknown | ClientOption::Malformed | ClientOption::Abort => {}
            understood => prop_assert_eq!(understood.encode(), (number, data)),
        }
    }

    #[test]
    fn requests_come_back(request in requests()) {
        prop_assert_eq!(RawRequest::parse(&request.encode()), Some(request));
    }

    #[test]
    fn what_is_carried_out_lies_in_the_device(
        request in requests(),
        size in prop_oneof![Just(0u64), 1..10_000u64, Just(u64::MAX)],
        writable in any::<bool>(),
        structured in any::<bool>(),
        block_status in any::<bool>(),
    ) {
        let terms = Terms { size, writable, structured, block_status };
        let Ok(command) = terms.check(&request) else { return Ok(()) };
        if matches!(command, Command::Disconnect | Command::Flush) {
            return Ok(());
        }
        let end = u128::from(request.offset) + u128::from(request.length);
        prop_assert!(request.length > 0 && end <= u128::from(size));
        let writes = matches!(
            command,
            Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }
        );
        prop_assert!(writable || !writes);
        let status = matches!(command, Command::BlockStatus { .. });
        prop_assert!(block_status || !status);
        let carried = matches!(command, Command::Read { .. } | Command::Write { .. });
        prop_assert!(!carried || request.length <= MAX_REQUEST);
    }

    #[test]
    fn replies_come_back(cookie in any::<u64>(), kind in any::<u16>(), flags in any::<u16>(), length in any::<u32>()) {
        let header = ChunkHeader { flags, kind, cookie, length };
        prop_assert_eq!(parse_chunk(&chunk_header(cookie, kind, flags, length)), Some(header));
        let reply = option_reply(length, kind.into(), b"data");
        prop_assert_eq!(parse_option_reply(reply.first_chunk().unwrap()), Some((length, kind.into(), 4)));
    }

    #[test]
    fn told_extents_come_back(context in any::<u32>(), extents in vec(any::<(u32, u32)>(), 0..50)) {
        let data = encode_extents(context, &extents);
        prop_assert_eq!(parse_extents(&data), Some((context, extents)));
        prop_assert_eq!(parse_extents(data.get(..data.len() - 1).unwrap()), None);
    }
}

#[test]
fn errors_have_their_numbers() {
    for error in [Error::Perm, Error::Io, Error::NoMem, Error::Inval, Error::NoSpc, Error::NotSup] {
        let reply = simple(7, Some(error));
        assert_eq!(parse_simple(&reply), Some((7, error as u32)));
        assert_eq!(Error::from_number(error as u32), error);
    }
    assert_eq!(parse_simple(&simple(7, None)), Some((7, 0)));
    assert_eq!(Error::from_number(9999), Error::Io);
}

#[test]
fn infos_come_back() {
    for info in [Info::Export(1 << 40, 99), Info::BlockSize(512, 4096, MAX_REQUEST)] {
        assert_eq!(Info::parse(&info.encode()), Some(info.clone()));
        let data = info.encode();
        assert_eq!(Info::parse(data.get(..data.len() - 1).unwrap()), None);
    }
}

#[test]
fn headers_that_are_none() {
    assert_eq!(RawRequest::parse(&[0; REQUEST]), None);
    assert_eq!(parse_simple(&[0xff; SIMPLE]), None);
    assert_eq!(parse_chunk(&[0; CHUNK]), None);
    assert_eq!(parse_option_header(&[0; OPTION]), None);
    assert_eq!(parse_option_reply(&[0; OPTION_REPLY]), None);
}
