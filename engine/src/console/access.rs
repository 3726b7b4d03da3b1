//! Who may see the console, and who may do something with it.
//!
//! Whoever has shown a certificate of `tls.client_ca` may look; where there is a token, too, one of the two will do.
//!
//! With a token: whoever says it in `Authorization: Bearer …`, which no other site can make a browser say (there are
//! no cookies). Without one: this machine only, and a page of another site must not reach it through the browser of
//! somebody who sits here. So the `Host` must be this machine, and what changes something needs a header that a
//! browser sends to another site only after it was asked for leave, which nobody gives.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, header};

use crate::http::tls::NO_CERTIFICATE;

/// A token has at least so many characters: one that can be guessed is none.
pub const TOKEN_CHARS_MIN: usize = 16;

/// A page of ours says this with every request that changes something.
const OWN_PAGE: &str = "x-lictor-console";

/// Why somebody is turned away.
pub(super) type Refused = (StatusCode, &'static str);

/// Whether only this machine reaches an address.
#[must_use]
pub fn is_local(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// What is asked of whoever looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked<'a> {
    /// The token, if there is one.
    pub(super) token: Option<&'a str>,
    /// Whether a certificate is as good, and without a token needed.
    pub(super) needs_certificate: bool,
}

/// Whether whoever sends these headers may look; `is_certified` if he has shown a certificate.
pub(super) fn may_look(asked: Asked<'_>, is_certified: bool, headers: &HeaderMap) -> Result<(), Refused> {
    if asked.needs_certificate && is_certified {
        return Ok(());
    }
    let Some(token) = asked.token else {
        if asked.needs_certificate {
            return Err((StatusCode::UNAUTHORIZED, NO_CERTIFICATE));
        }
        let is_here = headers.get(header::HOST).and_then(|host| host.to_str().ok()).is_some_and(is_this_machine);
        return if is_here { Ok(()) } else { Err((StatusCode::FORBIDDEN, "ask this machine by its own name")) };
    };
    let said = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match said {
        Some(said) if is_same(said, token.as_bytes()) => Ok(()),
        Some(_) => Err((StatusCode::UNAUTHORIZED, "this is not the token")),
        None => Err((StatusCode::UNAUTHORIZED, "say the token: Authorization: Bearer …")),
    }
}

/// Whether a program of this machine asks, and not a page of another site through the browser of somebody who sits
/// here: such a page has a name of its own in `Host` or `Origin`, or says that it is one.
pub(crate) fn is_asked_here(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_typed = headers.get("sec-fetch-site").is_none_or(|site| site == "none");
    host.is_some_and(is_this_machine) && !headers.contains_key(header::ORIGIN) && is_typed
}

/// Whether whoever sends these headers may change something.
pub(super) fn may_change(asked: Asked<'_>, is_certified: bool, headers: &HeaderMap) -> Result<(), Refused> {
    may_look(asked, is_certified, headers)?;
    // A browser shows certificates for pages of other sites, too.
    let has_said_token = asked.token.is_some() && headers.contains_key(header::AUTHORIZATION);
    if !has_said_token && !headers.contains_key(OWN_PAGE) {
        return Err((StatusCode::FORBIDDEN, "say x-lictor-console: other sites must not ask on somebody's behalf"));
    }
    Ok(())
}

/// Whether a `Host` is this machine, by one of its own names.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Takes as long for a wrong token as for the right one: only its length can be learnt.
fn is_same(said: &[u8], token: &[u8]) -> bool {
    let differing = said.iter().zip(token).fold(0, |differing, (a, b)| differing | std::hint::black_box(a ^ b));
    said.len() == token.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";
    const SAID: Asked<'_> = Asked { token: Some(TOKEN), needs_certificate: false };
    const HERE: Asked<'_> = Asked { token: None, needs_certificate: false };

    fn headers(said: &[(&'static str, &str)]) -> HeaderMap {
        said.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_said_as_it_is() {
        let status = |said: &str| may_look(SAID, false, &headers(&[("authorization", said)])).err().map(|no| no.0);
        assert_eq!(status("Bearer correct-horse-battery"), None);
        for wrong in ["Bearer correct-horse-batterx", "Bearer correct-horse-batteryy", "Bearer ", "Basic x", TOKEN] {
            assert_eq!(status(wrong), Some(StatusCode::UNAUTHORIZED), "{wrong}");
        }
        assert!(may_look(SAID, false, &headers(&[("host", "localhost")])).is_err(), "this machine needs it, too");
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        for (host, may) in [
            ("127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("[::1]:8080", true),
            ("evil.example:8080", false),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(may_look(HERE, false, &headers(&[("host", host)])).is_ok(), may, "{host}");
        }
        assert!(may_look(HERE, false, &headers(&[])).is_err());
    }

    #[test]
    fn other_sites_cannot_change_anything() {
        let here = ("host", "localhost");
        assert!(may_change(HERE, false, &headers(&[here])).is_err());
        assert!(may_change(HERE, false, &headers(&[here, ("x-lictor-console", "1")])).is_ok());
        assert!(may_change(SAID, false, &headers(&[here, ("x-lictor-console", "1")])).is_err());
        assert!(may_change(SAID, false, &headers(&[("authorization", "Bearer correct-horse-battery")])).is_ok());
    }

    #[test]
    fn a_certificate_is_as_good_as_the_token_and_needed_without_one() {
        let alone = Asked { token: None, needs_certificate: true };
        let either = Asked { token: Some(TOKEN), needs_certificate: true };
        let (here, said) =
            (headers(&[("host", "localhost")]), headers(&[("authorization", &format!("Bearer {TOKEN}"))]));
        assert!(may_look(alone, true, &headers(&[])).is_ok());
        assert_eq!(may_look(alone, false, &here), Err((StatusCode::UNAUTHORIZED, NO_CERTIFICATE)), "this machine, too");
        assert!(may_look(either, true, &headers(&[])).is_ok() && may_look(either, false, &said).is_ok());
        assert!(may_look(either, false, &here).is_err());
        assert!(may_look(HERE, true, &headers(&[("host", "evil.example")])).is_err(), "nobody has asked for one");
        assert!(may_change(alone, true, &headers(&[])).is_err(), "a page of another site has the browser show it");
        assert!(may_change(either, true, &headers(&[(OWN_PAGE, "1")])).is_ok());
        assert!(may_change(either, false, &headers(&[(OWN_PAGE, "1")])).is_err());
    }
}
