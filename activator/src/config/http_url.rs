//! The address of a server that is told or asked something by HTTP. In: the text of a setting. Out: an [`HttpUrl`] that can be called. Next: `net`,
//! whose client calls it.

use std::fmt;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// Longest address: a token in the query fits.
const MOST_BYTES: usize = 2048;

/// An address that begins with `http://` or `https://`. `Display` and `Debug` show scheme, host and port: the rest may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Uri);

/// The mistake in an address, and its fix. Shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// It does not begin with `http://` or `https://`, or it is no address at all.
    #[error("is no address of an HTTP server: write http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")]
    Form,
    /// It is longer than 2048 bytes.
    #[error("is longer than {MOST_BYTES} bytes")]
    TooLong,
    /// It has a user or a password.
    #[error("has a user or a password before the host, which is not sent: give the secret apart, or in the query")]
    Credentials,
}

impl HttpUrl {
    /// Parses an address.
    ///
    /// # Errors
    /// The mistake in it.
    pub fn parse(text: &str) -> Result<Self, HttpUrlError> {
        if text.len() > MOST_BYTES {
            return Err(HttpUrlError::TooLong);
        }
        let uri: Uri = text.parse().map_err(|_| HttpUrlError::Form)?;
        let authority = uri.authority().ok_or(HttpUrlError::Form)?;
        if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme()) || authority.host().is_empty() {
            return Err(HttpUrlError::Form);
        }
        if authority.as_str().contains('@') {
            return Err(HttpUrlError::Credentials);
        }
        // Behind the last colon that is not one of an IPv6 address.
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if !port.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(HttpUrlError::Form);
        }
        Ok(Self(uri))
    }

    /// The whole address.
    #[must_use]
    pub fn expose(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map(ToString::to_string).unwrap_or_default();
        write!(f, "{}://{authority}", self.0.scheme_str().unwrap_or_default())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_http_servers_parse_and_show_no_token() {
        for (text, shown) in [
            ("http://a.example/hook?token=s3cret", "http://a.example"),
            ("https://a.example:8443/s3cret", "https://a.example:8443"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("HTTP://10.0.0.1", "http://10.0.0.1"),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("s3cret"));
        }
        for text in [
            "",
            "a.example/hook",
            "/hook",
            "ftp://a/b",
            "rtmp://a/b",
            "http://",
            "http:///x",
            "http://a b/",
            "http://a:0/",
            "http://a:99999/",
        ] {
            assert_eq!(HttpUrl::parse(text), Err(HttpUrlError::Form), "{text}");
        }
        assert_eq!(HttpUrl::parse("https://user:s3cret@a.example/"), Err(HttpUrlError::Credentials));
        assert_eq!(HttpUrl::parse(&format!("http://a/{}", "x".repeat(MOST_BYTES))), Err(HttpUrlError::TooLong));
    }
}
