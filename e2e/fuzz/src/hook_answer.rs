//! Answers of a server that was asked about a publisher.

use liveedgecast_activator::admission::{HookAnswer, read_answer};
use liveedgecast_activator::config::HookFormat;

/// First bytes: the form and the status. The first line of the rest: `Location`. What follows: the body.
///
/// Whatever a server answers, the destinations of an accepted publisher are within their bound and have names that differ.
pub fn hook_answer(data: &[u8]) {
    let [form, high, low, rest @ ..] = data else { return };
    let format = if form % 2 == 0 { HookFormat::Form } else { HookFormat::Json };
    let status = 100 + u16::from_be_bytes([*high, *low]) % 500;
    let (location, body) =
        rest.iter().position(|byte| *byte == b'\n').map_or((rest, &rest[..0]), |at| rest.split_at(at));
    let location = std::str::from_utf8(location).ok();
    let HookAnswer::Accept(granted) = read_answer(format, status, location, body) else { return };
    assert!((200..400).contains(&status));
    assert!(granted.destinations.len() <= 32);
    for (at, destination) in granted.destinations.iter().enumerate() {
        assert!(!destination.name.is_empty() && destination.name.len() <= 63);
        assert!(granted.destinations[..at].iter().all(|before| before.name != destination.name));
    }
}
