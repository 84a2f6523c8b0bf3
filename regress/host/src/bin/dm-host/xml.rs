// SPDX-License-Identifier: BSD-2-Clause

//! Property lists as proplib(3) writes them: the requests and answers of the ioctl.
//!
//! Reading is the `plist` crate's work, which knows NetBSD's hexadecimal integers. Writing is done
//! here, since proplib tells signed from unsigned numbers by their base, and the tools whose
//! requests `ctl` sends use both.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A value to be sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Plist {
    /// A signed number, written in decimal.
    Signed(i64),
    /// An unsigned number, written in hexadecimal.
    Unsigned(u64),
    /// Text.
    Text(String),
    /// An array.
    Array(Vec<Plist>),
    /// A dictionary, its keys in order.
    Dict(Dict),
}

/// A dictionary to be sent.
pub type Dict = BTreeMap<&'static str, Plist>;

impl From<&str> for Plist {
    fn from(text: &str) -> Plist {
        Plist::Text(text.into())
    }
}

impl From<u64> for Plist {
    fn from(number: u64) -> Plist {
        Plist::Unsigned(number)
    }
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!DOCTYPE plist PUBLIC \"-//Apple Computer//DTD PLIST 1.0//EN\" \
    \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n";

/// The text of a dictionary.
pub fn write(dict: &Dict) -> String {
    let mut out = String::from(HEAD);
    dictionary(&mut out, dict, 0);
    out.push_str("</plist>\n");
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n('\t', depth));
}

fn dictionary(out: &mut String, dict: &Dict, depth: usize) {
    indent(out, depth);
    if dict.is_empty() {
        return out.push_str("<dict/>\n");
    }
    out.push_str("<dict>\n");
    for (key, value) in dict {
        indent(out, depth + 1);
        let _ = writeln!(out, "<key>{key}</key>");
        element(out, value, depth + 1);
    }
    indent(out, depth);
    out.push_str("</dict>\n");
}

fn element(out: &mut String, value: &Plist, depth: usize) {
    if let Plist::Dict(dict) = value {
        return dictionary(out, dict, depth);
    }
    indent(out, depth);
    // A String takes all that is written to it.
    let _ = match value {
        Plist::Signed(number) => writeln!(out, "<integer>{number}</integer>"),
        Plist::Unsigned(number) => writeln!(out, "<integer>{number:#x}</integer>"),
        Plist::Text(text) if text.is_empty() => writeln!(out, "<string/>"),
        Plist::Text(text) => writeln!(out, "<string>{}</string>", escape(text)),
        Plist::Array(values) if values.is_empty() => writeln!(out, "<array/>"),
        Plist::Array(values) => {
            out.push_str("<array>\n");
            values.iter().for_each(|value| element(out, value, depth + 1));
            indent(out, depth);
            writeln!(out, "</array>")
        }
        Plist::Dict(_) => Ok(()),
    };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A dictionary that came back.
#[derive(Clone, Debug)]
pub struct Answer(plist::Dictionary);

impl Answer {
    /// Parses an answer.
    ///
    /// # Errors
    /// A message with the mistake in the text.
    pub fn parse(text: &[u8]) -> Result<Answer, String> {
        match plist::Value::from_reader_xml(text) {
            Ok(plist::Value::Dictionary(dict)) => Ok(Answer(dict)),
            Ok(_) => Err("the reply is not a dictionary".into()),
            Err(error) => Err(format!("the reply is no property list: {error}")),
        }
    }

    /// The text at `key`; empty when there is none.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(plist::Value::as_string).unwrap_or_default()
    }

    /// A number, if the key is there and holds one.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key).and_then(unsigned)
    }

    /// An array's values; none when there is no array.
    pub fn array(&self, key: &str) -> &[plist::Value] {
        self.0.get(key).and_then(plist::Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The dictionaries in an array.
    pub fn dictionaries(&self, key: &str) -> impl Iterator<Item = Answer> {
        self.array(key).iter().filter_map(|value| value.as_dictionary().cloned().map(Answer))
    }

    /// The numbers in an array.
    pub fn numbers(&self, key: &str) -> Vec<u64> {
        self.array(key).iter().filter_map(unsigned).collect()
    }
}

fn unsigned(value: &plist::Value) -> Option<u64> {
    let signed = || value.as_signed_integer().and_then(|n| u64::try_from(n).ok());
    value.as_unsigned_integer().or_else(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_proplib_writes() {
        let version = [4, 0, 0].map(Plist::Signed).to_vec();
        let line = Dict::from([("length", 65536.into()), ("params", "/dev/<a>&b 0".into())]);
        let dict = Dict::from([
            ("version", Plist::Array(version)),
            ("command", "reload".into()),
            ("name", "".into()),
            ("cmd_data", Plist::Array(vec![Plist::Dict(line)])),
            ("empty", Plist::Array(vec![])),
        ]);
        let text = write(&dict);
        assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist"));
        let body = text.split_once("<plist version=\"1.0\">\n").unwrap().1;
        assert_eq!(
            body,
            "<dict>\n\t<key>cmd_data</key>\n\t<array>\n\t\t<dict>\n\t\t\t<key>length</key>\n\
             \t\t\t<integer>0x10000</integer>\n\t\t\t<key>params</key>\n\
             \t\t\t<string>/dev/&lt;a&gt;&amp;b 0</string>\n\t\t</dict>\n\t</array>\n\
             \t<key>command</key>\n\t<string>reload</string>\n\t<key>empty</key>\n\t<array/>\n\
             \t<key>name</key>\n\t<string/>\n\t<key>version</key>\n\t<array>\n\
             \t\t<integer>4</integer>\n\t\t<integer>0</integer>\n\t\t<integer>0</integer>\n\
             \t</array>\n</dict>\n</plist>\n"
        );
    }

    #[test]
    fn reads_back_both_bases_and_what_was_escaped() {
        let line = Dict::from([("params", "a <b> & c".into())]);
        let dict = Dict::from([
            ("minor", 0x10.into()),
            ("status", Plist::Signed(-1)),
            ("one", Plist::Signed(1)),
            ("cmd_data", Plist::Array(vec![Plist::Dict(line), Plist::Unsigned(u64::MAX)])),
        ]);
        let answer = Answer::parse(write(&dict).as_bytes()).unwrap();
        assert_eq!(answer.number("minor"), Some(16));
        assert_eq!(answer.number("one"), Some(1));
        assert_eq!(answer.number("status"), None);
        assert_eq!(answer.numbers("cmd_data"), [u64::MAX]);
        let lines: Vec<_> = answer.dictionaries("cmd_data").collect();
        assert_eq!(lines[0].text("params"), "a <b> & c");
        assert_eq!(answer.text("nothing"), "");
    }

    #[test]
    fn rubbish_is_an_error() {
        for text in ["", "<plist>", "<plist version=\"1.0\"><array/></plist>", "\0\0"] {
            assert!(Answer::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
