//! The list of streams. In: requests that have the right. Out: answers.

use liveedgecast_common::http::{Answer, Request};

use super::HttpContext;
use super::problem::ApiProblem;

/// Bytes of one list of streams: 10,000 of one worker, at some 400 each. The rest is on further pages. Eight readers at most hold one.
pub(super) const MAX_LIST: usize = 4 << 20;

/// Lists streams from `?from=` on, as many as [`MAX_LIST`] allows; the header `Link` has the address of the rest.
pub(super) fn list(shown: &HttpContext, request: &Request) -> Result<Answer, ApiProblem> {
    let from = request.query.split('&').find_map(|pair| pair.strip_prefix("from="));
    let from: usize = from.unwrap_or("0").parse().map_err(|_| malformed("from is a number of streams to leave out"))?;
    let mut json = b"[".to_vec();
    let next = shown.views.each_stream(from, |stream| {
        let before = json.len();
        if before > 1 {
            json.push(b',');
        }
        let fits = serde_json::to_writer(&mut json, &stream).is_ok() && json.len() < MAX_LIST;
        if !fits {
            json.truncate(before);
        }
        fits
    });
    json.extend_from_slice(b"]\n");
    json.shrink_to_fit();
    let next = next.map(|next| format!("{}?from={next}", request.path));
    Ok(Answer::typed("application/json", json).and_next(next))
}

fn malformed(why: &str) -> ApiProblem {
    ApiProblem::Malformed(why.to_owned())
}
