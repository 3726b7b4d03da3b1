//! The `console` section: where it is served, and to whom.

use std::net::SocketAddr;

use super::check::Reader;
use super::said::{ConsoleSaid, Said};
use crate::console::{TOKEN_CHARS_MIN, is_local};

/// Where the console is, and who may do what there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// Where it is served.
    pub listen: ConsoleListen,
    /// What whoever looks must say; none lets this machine look, and nobody else.
    pub token: Option<String>,
    /// Whether rules may be read again from there.
    pub allow_reload: bool,
}

/// Where the console is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsoleListen {
    /// Where `http` is, unless others than this machine could reach it and there is no token.
    #[default]
    Http,
    /// At an address of its own.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl ConsoleSettings {
    /// Where it is served if metrics are at `http`, and whether clients must show certificates there.
    ///
    /// # Errors
    /// Why it is served nowhere although nobody has turned it off.
    pub fn place(&self, http: Option<SocketAddr>, needs_certificate: bool) -> Result<ConsoleListen, &'static str> {
        match (self.listen, http) {
            (ConsoleListen::Http, None) => Ok(ConsoleListen::Off),
            (ConsoleListen::Http, Some(address))
                if !is_local(address) && self.token.is_none() && !needs_certificate =>
            {
                Err("the console is off: `http` is no loopback address; say a `console.token` or a `tls.client_ca`")
            }
            (listen, _) => Ok(listen),
        }
    }
}

impl Reader<'_> {
    /// `needs_certificate`: whether clients must show one.
    pub(super) fn console(&mut self, said: Option<&ConsoleSaid>, needs_certificate: bool) -> ConsoleSettings {
        let nothing = ConsoleSaid::default();
        let said = said.unwrap_or(&nothing);
        let token = said.token.as_ref().and_then(|said| self.token(said));
        let listen = self.or("console.listen", said.listen.as_ref(), ConsoleListen::Http, listen);
        if let (ConsoleListen::At(address), None, Some(at)) = (listen, &said.token, &said.listen)
            && !is_local(address)
            && !needs_certificate
        {
            let message = format!(
                "console.listen: {address} is no loopback address: say a `console.token` or a `tls.client_ca`, without \
                 which anybody who reaches it could look"
            );
            self.fault(Some(at.referenced), message);
        }
        let allow_reload = self.or("console.allow_reload", said.allow_reload.as_ref(), false, yes_or_no);
        ConsoleSettings { listen, token, allow_reload }
    }

    /// Reads the token; a fault does not repeat it.
    fn token(&mut self, said: &Said) -> Option<String> {
        let token = self.text("console.token", said)?.trim().to_owned();
        self.hide(vec![token.clone()]);
        let is_sayable = token.chars().all(|c| c.is_ascii_graphic());
        if token.len() < TOKEN_CHARS_MIN || !is_sayable {
            let message = format!(
                "console.token: is shorter than {TOKEN_CHARS_MIN} characters or has others than letters, digits and \
                 signs of ASCII: `openssl rand -hex 24` makes one"
            );
            self.fault(Some(said.referenced), message);
            return None;
        }
        Some(token)
    }
}

fn listen(text: &str) -> Result<ConsoleListen, String> {
    match text {
        "http" => Ok(ConsoleListen::Http),
        "off" => Ok(ConsoleListen::Off),
        _ => text
            .parse()
            .map(ConsoleListen::At)
            .map_err(|_| "is not an IP address and port such as 127.0.0.1:8081, nor `http`, nor `off`".to_owned()),
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "is neither `true` nor `false`".to_owned())
}
