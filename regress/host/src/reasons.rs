// SPDX-License-Identifier: BSD-2-Clause

//! Reasons for clients that do not ask for them: the key `reasons` is added to their requests, and the driver's reply
//! becomes an error and words.

use crate::errno::Errno;

/// An error, with words about it.
pub type Said<T> = Result<T, (Errno, String)>;

const KEY: &str = "<key>reasons</key>";

/// Sends a request by `send`. The answer to one that asks for reasons itself is the driver's own.
///
/// # Errors
/// The driver's, with its reason.
pub fn ask(xml: &str, send: impl FnOnce(&str) -> Result<String, Errno>) -> Said<String> {
    let asking = match xml.split_once("<dict>") {
        Some((head, rest)) if !xml.contains(KEY) => {
            Some(format!("{head}<dict>{KEY}<integer>0x1</integer>{rest}"))
        }
        _ => None,
    };
    let reply = send(asking.as_deref().unwrap_or(xml)).map_err(|errno| bare(errno, xml))?;
    match asking.and_then(|_| refusal(&reply)) {
        Some(refusal) => Err(refusal),
        None => Ok(reply),
    }
}

/// The error and the words for a call that failed without a reply.
fn bare(errno: Errno, xml: &str) -> (Errno, String) {
    let why = match errno {
        Errno::E2BIG => format!(
            "the request has {} bytes, and this kernel takes less than 65536; a table can be sent \
             in several",
            xml.len()
        ),
        Errno::EIO => "the request is not a property list with a dictionary".into(),
        Errno::EINVAL => "arrays and dictionaries lie in one another too deep".into(),
        _ => String::new(),
    };
    (errno, why)
}

/// `true` if a reply tells that the command failed.
pub fn is_failure(reply: &[u8]) -> bool {
    str::from_utf8(reply).is_ok_and(|reply| refusal(reply).is_some())
}

fn refusal(reply: &str) -> Option<(Errno, String)> {
    // Replies may be long; most tell of no failure.
    let (_, errno) = reply.split_once("<key>errno</key>")?;
    if errno.trim_start().starts_with("<integer>0x0<") {
        return None;
    }
    let reply = plist::Value::from_reader_xml(reply.as_bytes()).ok()?;
    let reply = reply.as_dictionary()?;
    let number = |key| reply.get(key).and_then(plist::Value::as_unsigned_integer);
    let errno = number("errno").and_then(|errno| i32::try_from(errno).ok())?;
    let reason = reply.get("reason").and_then(plist::Value::as_string).unwrap_or_default();
    let text = match number("line") {
        Some(line) => format!("line {line}: {reason}"),
        None => reason.into(),
    };
    (errno != 0).then_some((Errno(errno), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_an_error_with_words() {
        let reply = "<plist version=\"1.0\"><dict>\n<key>errno</key>\n<integer>0x16</integer>\n\
                     <key>line</key><integer>0x2</integer><key>reason</key><string>no</string>\
                     </dict></plist>";
        let mut sent = String::new();
        let answer = ask("<plist><dict><key>command</key></dict></plist>", |xml| {
            sent = xml.into();
            Ok(reply.into())
        });
        assert_eq!(answer, Err((Errno::EINVAL, "line 2: no".into())));
        assert!(sent.starts_with("<plist><dict><key>reasons</key><integer>0x1</integer><key>"));
        // A client that asks for reasons gets the driver's own reply.
        let own = "<plist><dict><key>reasons</key><integer>0x1</integer></dict></plist>";
        assert_eq!(
            ask(own, |xml| (xml == own).then(|| reply.into()).ok_or(Errno::EIO)),
            Ok(reply.into())
        );
    }

    #[test]
    fn success_and_bare_errors_stay_what_they_are() {
        let fine = "<plist version=\"1.0\"><dict><key>errno</key>\n\t<integer>0x0</integer></dict></plist>";
        assert_eq!(ask("<dict></dict>", |_| Ok(fine.into())), Ok(fine.into()));
        assert!(!is_failure(fine.as_bytes()) && !is_failure(b"\xff"));
        let (errno, why) = ask(&"x".repeat(70_000), |_| Err(Errno::E2BIG)).unwrap_err();
        assert!(errno == Errno::E2BIG && why.contains("70000 bytes"), "{why}");
    }
}
