//! The files of the console, which lie in the binary: a browser asks nobody else for anything.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file: its path, type and contents.
pub(super) type Page = (&'static str, &'static str, &'static str);

/// Every file.
pub(super) const PAGES: [Page; 11] = [
    ("/", HTML, include_str!("web/index.html")),
    ("/console/style.css", CSS, include_str!("web/style.css")),
    ("/console/icon.svg", SVG, include_str!("web/icon.svg")),
    ("/console/main.js", JS, include_str!("web/main.js")),
    ("/console/ask.js", JS, include_str!("web/ask.js")),
    ("/console/dom.js", JS, include_str!("web/dom.js")),
    ("/console/chart.js", JS, include_str!("web/chart.js")),
    ("/console/sql.js", JS, include_str!("web/sql.js")),
    ("/console/overview.js", JS, include_str!("web/overview.js")),
    ("/console/rules.js", JS, include_str!("web/rules.js")),
    ("/console/lists.js", JS, include_str!("web/lists.js")),
];

/// What every answer says of itself.
pub(super) fn guarded(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    answer
}

/// Another version of lictor has other files under the same names.
pub(super) fn answer((_, kind, text): Page) -> Response {
    guarded((StatusCode::OK, [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response())
}
