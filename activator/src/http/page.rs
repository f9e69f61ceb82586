//! The page for people, at `/`: what the API shows, and buttons for what it changes. In: a request. Out: one of four files in the binary; the browser
//! then asks the API. Next: nothing; the page has no right of its own.
//!
//! The files name each other and the API by relative addresses, so the page works behind a proxy that puts a prefix in front. It loads nothing from
//! elsewhere, and its policy forbids that. Text of publishers and upstreams is never read as HTML.

use liveedgecast_common::http::{Answer, Routes};

/// Path, type and content of each file.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/picture.js", "text/javascript; charset=utf-8", include_str!("page/picture.js")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
];

/// Adds the page to the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    FILES.into_iter().fold(routes, |routes, (path, content_type, content)| {
        routes.get(path, move |_| std::future::ready(Answer::typed(content_type, content)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_loads_nothing_from_elsewhere_and_reads_no_text_as_html() {
        let [(_, _, html), (_, _, script), (_, _, picture), (_, _, style)] = FILES;
        for text in [html, script, picture, style] {
            assert!(!text.contains("https://") && !text.contains("url("), "it loads something from elsewhere");
        }
        assert_eq!(script.matches("http://").count(), 1, "the name space of SVG");
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(word) && !picture.contains(word), "{word}");
        }
        // Each is relative.
        for place in ["href=\"/", "src=\"/", "fetch('/", "fetch(`/"] {
            assert!(![html, script, picture].iter().any(|text| text.contains(place)), "{place}");
        }
    }
}
