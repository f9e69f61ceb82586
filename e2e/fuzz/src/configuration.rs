//! The configuration file.

use liveedgecast_activator::config::{check_name, check_text};

/// The text of a file; each file that it names has the text `named`.
///
/// Each mistake has a line of the text. A file without mistakes has publishers whose names differ and whose routes exist, and routes whose destinations
/// are within their bound and have names that differ.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = match check_text(text, |_| Ok("named".to_owned())) {
        Ok(file) => file,
        Err(problems) => {
            assert!(problems.iter().count() > 0);
            return;
        }
    };
    for (at, publisher) in file.publishers.iter().enumerate() {
        assert!(check_name(&publisher.name).is_ok());
        assert!(file.publishers[..at].iter().all(|before| before.name != publisher.name));
        assert!(file.routes.contains_key(&publisher.route));
    }
    for (name, route) in &file.routes {
        assert!(check_name(name).is_ok() && (1..=32).contains(&route.destinations.len()));
        for (at, destination) in route.destinations.iter().enumerate() {
            assert!(check_name(&destination.name).is_ok());
            assert!(route.destinations[..at].iter().all(|before| before.name != destination.name));
        }
    }
    let somebody = !file.publishers.is_empty() || file.open || file.hooks.publish.is_some() || file.jwt.is_some();
    assert!(somebody, "nobody could publish");
}
