// SPDX-License-Identifier: BSD-2-Clause

use super::round_trip;

fn list(body: &str) -> String {
    format!("<plist version=\"1.0\">{body}</plist>")
}

fn body(text: &str) -> Option<String> {
    let out = round_trip(&list(text))?;
    let start = out.find("<plist version=\"1.0\">\n")? + "<plist version=\"1.0\">\n".len();
    Some(out[start..].strip_suffix("</plist>\n")?.to_owned())
}

#[test]
fn writes_as_netbsd_does() {
    let out = body(
        "<dict><key>b</key><array><integer>-1</integer><integer>0x10</integer>\
         <integer>7</integer></array><key>a</key><string>x &lt; &amp; &quot;y&quot;</string>\
         <key>c</key><dict/><key>d</key><string></string><key>e</key><true/></dict>",
    );
    let expected = "<dict>\n\t<key>a</key>\n\t<string>x &lt; &amp; \"y\"</string>\n\
        \t<key>b</key>\n\t<array>\n\t\t<integer>-1</integer>\n\t\t<integer>0x10</integer>\n\
        \t\t<integer>7</integer>\n\t</array>\n\t<key>c</key>\n\t<dict/>\n\t<key>d</key>\n\
        \t<string/>\n\t<key>e</key>\n\t<true/>\n</dict>\n";
    assert_eq!(out.as_deref(), Some(expected));
}

#[test]
fn numbers() {
    let number = |text: &str| body(&format!("<integer>{text}</integer>"));
    let is = |text: &str| Some(format!("<integer>{text}</integer>\n"));
    assert_eq!(number("010"), is("8"));
    assert_eq!(number(" 12 "), is("12"));
    assert_eq!(number(""), is("0"));
    assert_eq!(number("-9223372036854775808"), is("-9223372036854775808"));
    // A kernel's strtoll has no ERANGE: the largest there is.
    assert_eq!(number("9223372036854775808"), is("9223372036854775807"));
    assert_eq!(number("0xffffffffffffffff"), is("0xffffffffffffffff"));
    assert_eq!(number("0x1ffffffffffffffff"), is("0xffffffffffffffff"));
    for wrong in ["abc", "-", "0x", "1 2", "1.5"] {
        assert_eq!(number(wrong), None, "{wrong}");
    }
}

#[test]
fn data() {
    assert_eq!(body("<data>AAEC\n/w==</data>").as_deref(), Some("<data>AAEC/w==</data>\n"));
    assert_eq!(body("<data size=\"2\">AAE=</data>").as_deref(), Some("<data>AAE=</data>\n"));
    assert_eq!(body("<data></data>").as_deref(), Some("<data/>\n"));
    for wrong in ["<data/>", "<data>A</data>", "<data>AAE</data>", "<data size=\"3\">AAE=</data>"] {
        assert_eq!(body(wrong), None, "{wrong}");
    }
}

#[test]
fn refuses() {
    for wrong in [
        "",
        "<dict>",
        "<dict><key>a</key></dict>",
        "<dict><key/><true/></dict>",
        "<dict><integer>1</integer></dict>",
        "<dict a=\"b\"></dict>",
        "<array><true></true></array>",
        "<string>a & b</string>",
        "<string>&nbsp;</string>",
        "<real>1</real>",
        "<array></dict>",
        "<true/><true/>",
    ] {
        assert_eq!(body(wrong), None, "{wrong}");
    }
    let key = |len: usize| format!("<dict><key>{}</key><true/></dict>", "k".repeat(len));
    assert!(body(&key(128)).is_some());
    assert!(body(&key(129)).is_none());
}

#[test]
fn comments_and_doubled_keys() {
    let out = body(
        "<!-- x --><dict><!-- y --><key>a</key><!-- z --><true/>\
                    <key>a</key><false/></dict>",
    );
    assert_eq!(out.as_deref(), Some("<dict>\n\t<key>a</key>\n\t<false/>\n</dict>\n"));
}

#[test]
fn nests_deeply() {
    let deep = "<array>".repeat(9000) + "<array/>" + &"</array>".repeat(9000);
    let out = body(&deep).expect("accepted");
    assert_eq!(out.matches("<array>\n").count(), 9000);
}

#[test]
fn cut_off_anywhere() {
    let whole = list("<dict><key>a</key><data size=\"2\">AAE=</data><!-- c --></dict>");
    for end in 0..whole.len() {
        assert_eq!(round_trip(&whole[..end]), None, "{end}");
    }
    assert!(round_trip(&whole).is_some());
}
