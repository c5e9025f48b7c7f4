//! Credentials: kept out of everything that is shown.

use super::Surroundings;
use std::fmt;
use std::ops::Range;

/// A camera's address or pipeline description, which may hold credentials. `Debug` and `Display` show it
/// as it stands in the file, without them; only [`Address::expose`] gives the whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    shown: String,
    whole: String,
}

impl Address {
    /// An address as it is; what looks like a credential is hidden.
    #[must_use]
    pub fn new(whole: &str) -> Self {
        Self { shown: redact(whole), whole: whole.to_owned() }
    }

    /// An address in which every `${NAME}` is replaced by the environment variable of that name, as it is.
    /// The value is never shown, wherever in the address it stands.
    ///
    /// # Errors
    /// Names the variable that is missing, or says what is wrong with the way it is written.
    pub fn expand(text: &str, surroundings: &dyn Surroundings) -> Result<Self, String> {
        let mut whole = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            whole.push_str(&rest[..at]);
            let name = &rest[at + 2..];
            let end = name.find('}').ok_or("`${` without a closing `}`: a variable is written ${NAME}")?;
            let (name, after) = (&name[..end], &name[end + 1..]);
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err("between `${` and `}` stands a variable's name, of letters, digits and _".into());
            }
            let value = surroundings.variable(name).ok_or_else(|| {
                format!("the environment variable {name} is not set; set it before the start")
            })?;
            whole.push_str(&value);
            rest = after;
        }
        whole.push_str(rest);
        Ok(Self { shown: redact(text), whole })
    }

    /// The whole, with credentials: for whoever opens it, and never for a log, an error or a file.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.whole
    }

    /// Whether credentials stand in the text itself, not in a variable.
    #[must_use]
    pub(crate) fn spelled_out(text: &str) -> bool {
        hidden(text).into_iter().any(|range| !text[range].contains("${"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

/// Names of properties and query parameters whose values are hidden, in lower case with `-` for `_`.
const SECRET_KEYS: [&str; 27] = [
    "user",
    "username",
    "user-id",
    "user-pw",
    "usr",
    "login",
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "pw",
    "token",
    "access-token",
    "auth",
    "authorization",
    "credentials",
    "secret",
    "key",
    "api-key",
    "apikey",
    "sig",
    "signature",
    "proxy-id",
    "proxy-pw",
    "cookies",
    "session",
];

/// The text with `***` in place of what looks like a credential: everything between `://` and the last `@`
/// of an address, and the values of keys such as `password=`, `token=`, `user-pw=` (both in queries and as
/// properties of pipeline elements). It rather hides too much than too little.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut shown_to = 0;
    for range in hidden(text) {
        if range.start >= shown_to {
            out.push_str(&text[shown_to..range.start]);
            out.push_str("***");
        }
        shown_to = shown_to.max(range.end);
    }
    out.push_str(&text[shown_to..]);
    out
}

/// Where credentials stand, by start; ranges may overlap.
fn hidden(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<_> = text
        .match_indices("://")
        .filter_map(|(at, sign)| userinfo(text, at, at + sign.len()))
        .chain(text.match_indices('=').filter_map(|(at, _)| secret_value(text, at)))
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// What stands between `://` (which starts at `sign` and ends at `start`) and the address's last `@`.
fn userinfo(text: &str, sign: usize, start: usize) -> Option<Range<usize>> {
    let scheme = text[..sign].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let rest = &text[start..];
    // A quoted address ends at its quote, so that a blank in a password does not end it.
    let end = match scheme.chars().next_back() {
        Some(quote @ ('"' | '\'')) => rest.find([quote, '\n']),
        _ => rest.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)),
    };
    let at = rest[..end.unwrap_or(rest.len())].rfind('@')?;
    (at > 0).then_some(start..start + at)
}

/// The value after the `=` at `equals`, if the word before it is one of [`SECRET_KEYS`].
fn secret_value(text: &str, equals: usize) -> Option<Range<usize>> {
    let blank = [' ', '\t'];
    let before = text[..equals].trim_end_matches(blank);
    let word_start =
        before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_').len();
    let word = before[word_start..].to_ascii_lowercase().replace('_', "-");
    if !SECRET_KEYS.contains(&word.as_str()) {
        return None;
    }
    let after = &text[equals + 1..];
    let value = after.trim_start_matches(blank);
    let mut start = equals + 1 + (after.len() - value.len());
    let end = match opening_quote(value) {
        Some(quote) => {
            start += quote.len();
            text[start..].find(quote)
        }
        None => text[start..].find(|c: char| c.is_whitespace() || "&\"'".contains(c)),
    };
    let end = end.map_or(text.len(), |length| start + length);
    (start < end).then_some(start..end)
}

/// The quote with which a value opens: plain, or escaped within another string.
fn opening_quote(value: &str) -> Option<&'static str> {
    ["\\\"", "\"", "'"].into_iter().find(|quote| value.starts_with(quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden() {
        for (text, shown) in [
            ("rtsp://admin:s3cret@10.0.0.4:554/h264", "rtsp://***@10.0.0.4:554/h264"),
            ("rtsp://admin@10.0.0.4/", "rtsp://***@10.0.0.4/"),
            ("rtsp://admin:p@ss/w@10.0.0.4/", "rtsp://***@10.0.0.4/"),
            ("rtsp://10.0.0.4/?user=joe&password=x&ch=1", "rtsp://10.0.0.4/?user=***&password=***&ch=1"),
            ("rtsp://10.0.0.4/main", "rtsp://10.0.0.4/main"),
            ("uri = \"rtsp://a:b c@h/\" # x", "uri = \"rtsp://***@h/\" # x"),
            (
                "rtspsrc location=rtsp://a:b@h user-id=joe user-pw=x ! fakesink",
                "rtspsrc location=rtsp://***@h user-id=*** user-pw=*** ! fakesink",
            ),
            ("rtspsrc user-pw = \"a b\" latency=5", "rtspsrc user-pw = \"***\" latency=5"),
            ("\"rtspsrc user-pw=\\\"a b\\\" ! x\"", "\"rtspsrc user-pw=\\\"***\\\" ! x\""),
            ("https://h/api?API_KEY=q#frag", "https://h/api?API_KEY=***"),
            ("srtsrc passphrase='long one' uri=srt://h", "srtsrc passphrase='***' uri=srt://h"),
            ("http://h/?token=http://u:p@q", "http://***"),
            ("video/x-raw,format=I420 ! queue", "video/x-raw,format=I420 ! queue"),
            ("password=", "password="),
            ("é://ü@é", "é://***@é"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn an_address_shows_no_credentials_and_no_variables_values() {
        struct One;
        impl Surroundings for One {
            fn read(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
                Err(std::io::ErrorKind::NotFound.into())
            }
            fn variable(&self, name: &str) -> Option<String> {
                (name == "CAM_PW").then(|| "tre sor".to_owned())
            }
        }
        let address = Address::expand("rtsp://joe:${CAM_PW}@h/a${CAM_PW}", &One).unwrap();
        assert_eq!(address.expose(), "rtsp://joe:tre sor@h/atre sor");
        assert_eq!(address.to_string(), "rtsp://***@h/a${CAM_PW}");
        assert_eq!(format!("{address:?}"), "\"rtsp://***@h/a${CAM_PW}\"");
        assert!(Address::expand("${OTHER}", &One).unwrap_err().contains("OTHER is not set"));
        assert!(Address::expand("${", &One).is_err());
        assert!(Address::expand("${a-b}", &One).is_err());
        assert!(!Address::spelled_out("rtsp://${USER}:${CAM_PW}@h/"));
        assert!(Address::spelled_out("rtsp://joe:secret@h/"));
    }
}
