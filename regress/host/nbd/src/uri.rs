// SPDX-License-Identifier: BSD-2-Clause

//! NBD URIs, as the NBD project's `doc/uri.md` defines them: `nbd://HOST[:PORT]/EXPORT` and
//! `nbd+unix:///EXPORT?socket=PATH`.

use std::path::{Path, PathBuf};

/// The port of a server that is named without one.
pub const PORT: u16 = 10809;

/// The address of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A host's name or address, without brackets, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A server and one of its exports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uri {
    /// The address of the server.
    pub place: Place,
    /// The name of the export; the default one is empty.
    pub export: String,
}

impl Uri {
    /// `true` for a text that means a URI of a server, right or wrong.
    pub fn is_one(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| scheme.starts_with("nbd"))
    }

    /// Takes a URI apart.
    ///
    /// # Errors
    /// A message with the mistake.
    pub fn parse(text: &str) -> Result<Uri, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let export = decode(path)?;
        let mut socket = None;
        for word in query.split('&').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some(("socket", path)) => socket = Some(PathBuf::from(decode(path)?)),
                _ => return Err(format!("`{word}` is nothing that is known in it")),
            }
        }
        let place = match (scheme, socket) {
            ("nbd", None) => tcp(host)?,
            ("nbd", Some(_)) => return Err("socket= is for nbd+unix://".into()),
            ("nbd+unix", Some(path)) if host.is_empty() && !path.as_os_str().is_empty() => {
                Place::Unix(path)
            }
            ("nbd+unix", Some(_)) => return Err("it is nbd+unix:///EXPORT, with three `/`".into()),
            ("nbd+unix", None) => return Err("it has no ?socket=PATH".into()),
            ("nbds" | "nbds+unix", _) => return Err("TLS is not spoken here".into()),
            _ => return Err(format!("{scheme}:// is neither nbd:// nor nbd+unix://")),
        };
        Ok(Uri { place, export })
    }
}

impl std::fmt::Display for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Unix(path) => f.write_str(&unix(&self.export, path)),
            Place::Tcp(host, port) => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                write!(f, "nbd://{host}:{port}/{}", encode(&self.export))
            }
        }
    }
}

/// The URI of an export at a Unix socket.
pub fn unix(export: &str, socket: &Path) -> String {
    format!("nbd+unix:///{}?socket={}", encode(export), encode(&socket.to_string_lossy()))
}

fn tcp(host: &str) -> Result<Place, String> {
    let wrong = || format!("`{host}` is no host");
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => {
            let (name, rest) = v6.split_once(']').ok_or_else(wrong)?;
            (name, rest.strip_prefix(':').unwrap_or(rest))
        }
        None => host.split_once(':').unwrap_or((host, "")),
    };
    let port = if port.is_empty() { Ok(PORT) } else { port.parse() };
    let port = port.map_err(|_| format!("`{host}` has no port's number"))?;
    if name.is_empty() || name.contains('@') {
        return Err(wrong());
    }
    Ok(Place::Tcp(decode(name)?, port))
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn decode(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}`: after each % stand two hexadecimal digits");
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push((high << 4 | low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| format!("`{text}` is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_apart_and_put_together() {
        for (text, place, export) in [
            ("nbd://host", Place::Tcp("host".into(), PORT), ""),
            ("nbd://host/", Place::Tcp("host".into(), PORT), ""),
            ("nbd://10.0.0.1:99/a%20b", Place::Tcp("10.0.0.1".into(), 99), "a b"),
            ("nbd://[::1]:99/a/b", Place::Tcp("::1".into(), 99), "a/b"),
            ("nbd+unix:///?socket=/tmp/x%2Cy", Place::Unix("/tmp/x,y".into()), ""),
            ("nbd+unix:///v?socket=s", Place::Unix("s".into()), "v"),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri, Uri { place, export: export.into() });
            assert_eq!(Uri::parse(&uri.to_string()).unwrap(), uri, "{uri}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "host",
            "nbd://",
            "nbd://:99",
            "nbd://h:x",
            "nbd://h:99999",
            "nbd://[::1",
            "nbd://me@h",
            "nbd://h/%",
            "nbd://h/%f",
            "nbd://h/%ff",
            "nbd://h/?socket=s",
            "nbd+unix:///v",
            "nbd+unix://v?socket=s",
            "nbd+unix:///v?socket=",
            "nbd+unix:///v?tls=yes&socket=s",
            "nbds://h",
            "http://h",
        ] {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
    }
}
