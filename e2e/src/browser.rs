//! Headless Chromium, for the scenarios of the page. In: the steps of a person. Out: what the page shows; a panic where it does not. The driver is
//! `e2e/page/browser.py`, with Playwright, which `tools/setup.sh` installs.
//!
//! Note: Chromium takes a processor for itself while it starts, so one runs at a time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::driver::PythonDriver;

/// The turn of the one browser.
static TURN: Mutex<()> = Mutex::new(());

/// A window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// True if the reader prefers dark pages.
    pub dark: bool,
}

impl Look {
    /// A window on a desk.
    pub const DESKTOP: Self = Self { width: 1280, height: 900, dark: false };
    /// A phone, upright.
    pub const PHONE: Self = Self { width: 390, height: 844, dark: false };

    /// The same, dark.
    #[must_use]
    pub const fn dark(self) -> Self {
        Self { dark: true, ..self }
    }
}

/// A running Chromium with one page.
#[derive(Debug)]
pub struct Browser {
    driver: PythonDriver,
    /// Dropped last.
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts Chromium.
    ///
    /// # Panics
    /// Chromium or Playwright is missing; `tools/setup.sh tests` installs both.
    #[must_use]
    pub fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { driver: PythonDriver::start("page/browser.py", "browser"), _turn: turn }
    }

    #[track_caller]
    fn order(&mut self, order: &Value) -> Value {
        self.driver.order(order)
    }

    /// Opens the page at an address, below a path that ends with a slash.
    #[track_caller]
    pub fn open(&mut self, address: SocketAddr, path: &str, look: Look) {
        self.order(&json!(["open", format!("http://{address}{path}"), look.width, look.height, look.dark]));
    }

    /// Gives the page a token, as its reader does.
    #[track_caller]
    pub fn unlock(&mut self, token: &str) {
        self.press("", "Token…");
        self.fill("Token", token);
        self.press("", "Use it");
    }

    /// Waits until a place shows a text. A place is a stream or a section, and behind a slash the name of a row in it.
    #[track_caller]
    pub fn shows(&mut self, place: &str, text: &str) {
        self.order(&json!(["shows", place, text]));
    }

    /// Waits until a place no longer shows a text.
    #[track_caller]
    pub fn lacks(&mut self, place: &str, text: &str) {
        self.order(&json!(["lacks", place, text]));
    }

    /// Waits until there is no such place.
    #[track_caller]
    pub fn misses(&mut self, place: &str) {
        self.order(&json!(["misses", place]));
    }

    /// Presses a button, by the name that screen readers say, and confirms.
    #[track_caller]
    pub fn press(&mut self, place: &str, button: &str) {
        self.order(&json!(["press", place, button]));
    }

    /// Fills a field.
    #[track_caller]
    pub fn fill(&mut self, label: &str, text: &str) {
        self.order(&json!(["fill", label, text]));
    }

    /// Presses a button by keyboard alone.
    #[track_caller]
    pub fn press_by_keyboard(&mut self, button: &str) {
        self.order(&json!(["reach", button]));
        self.order(&json!(["type_enter"]));
    }

    /// The label of the element that has the keyboard's focus.
    #[track_caller]
    pub fn focus(&mut self) -> Option<String> {
        self.order(&json!(["focus"])).as_str().map(str::to_owned)
    }

    /// Asserts that axe finds no fault, that the keyboard reaches everything, that nothing is cut off at the side, and that the browser has not
    /// complained.
    ///
    /// # Panics
    /// One of these is not so.
    #[track_caller]
    pub fn is_well_made(&mut self) {
        let nothing = json!([]);
        assert_eq!(self.order(&json!(["axe"])), nothing, "axe");
        assert_eq!(self.order(&json!(["unreached"])), nothing, "out of the keyboard's reach");
        assert_eq!(self.order(&json!(["too_wide"])), 0, "pixels beyond the window");
        self.has_not_complained();
    }

    /// Asserts that the browser has not complained, and has asked no other server.
    ///
    /// # Panics
    /// The browser has.
    #[track_caller]
    pub fn has_not_complained(&mut self) {
        assert_eq!(self.order(&json!(["complained"])), json!([]), "complaints");
    }

    /// Width, height and number of different colours at nine points of the picture at a place.
    #[track_caller]
    pub fn canvas(&mut self, place: &str) -> [u64; 3] {
        let told = self.order(&json!(["canvas", place]));
        [0, 1, 2].map(|at: usize| told[at].as_u64().unwrap_or_default())
    }

    /// Writes a picture of the page; of the whole page, or of the window.
    #[track_caller]
    pub fn picture(&mut self, path: &Path, whole: bool) {
        self.order(&json!(["picture", path, whole]));
    }
}
