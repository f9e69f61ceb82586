//! The errors of the API. In: the reason for which a request is not done. Out: an answer of `application/problem+json` (RFC 9457). Pure.

use liveedgecast_common::http::{Answer, StatusCode};

/// The beginning of every type of a problem.
const TYPE: &str = "urn:liveedgecast:problem:";

/// The reason for which a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiProblem {
    /// No token is configured, and the request does not come from this machine.
    ReadingClosed,
    /// No token for changes is configured.
    ChangesClosed,
    /// The request has no token.
    TokenMissing,
    /// The request's token is none of ours.
    TokenUnknown,
    /// The request's token is the one for reading.
    TokenReadsOnly,
    /// A page of another site has caused the request.
    OtherSite,
    /// The request cannot be understood; the sentence says why.
    Malformed(String),
    /// No stream has this id.
    StreamUnknown,
    /// The stream has no destination of this name.
    DestinationUnknown,
    /// The name or the URL of a destination is not valid; the sentence says why.
    DestinationUnfit(String),
    /// A destination is at odds with another one, or with its worker; the sentence says why.
    DestinationConflict(String),
    /// No registered worker has this name.
    WorkerUnknown,
    /// Another activator holds the publisher, and the request could not be passed on to it; the sentence says why.
    HolderAway(String),
    /// Nothing of the stream can be shown at the moment; the sentence says why.
    ExcerptNotNow(String),
    /// There is no such picture, and asking again soon does not help; the sentence says why.
    ExcerptNone(String),
    /// Another activator keeps the stream's bytes; the sentence names it.
    ExcerptElsewhere(String),
    /// The demand is not known yet, or not any more; the sentence says why.
    Unsure(String),
}

impl ApiProblem {
    /// A problem of each type.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let why = String::new;
        vec![
            Self::ReadingClosed,
            Self::ChangesClosed,
            Self::TokenMissing,
            Self::TokenUnknown,
            Self::TokenReadsOnly,
            Self::OtherSite,
            Self::Malformed(why()),
            Self::StreamUnknown,
            Self::DestinationUnknown,
            Self::DestinationUnfit(why()),
            Self::DestinationConflict(why()),
            Self::WorkerUnknown,
            Self::HolderAway(why()),
            Self::ExcerptNotNow(why()),
            Self::ExcerptNone(why()),
            Self::ExcerptElsewhere(why()),
            Self::Unsure(why()),
        ]
    }

    /// The problem's name: the end of its type, and the class in the log.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::ReadingClosed => "reading-closed",
            Self::ChangesClosed => "changes-closed",
            Self::TokenMissing => "token-missing",
            Self::TokenUnknown => "token-unknown",
            Self::TokenReadsOnly => "token-reads-only",
            Self::OtherSite => "other-site",
            Self::Malformed(_) => "malformed",
            Self::StreamUnknown => "stream-unknown",
            Self::DestinationUnknown => "destination-unknown",
            Self::DestinationUnfit(_) => "destination-unfit",
            Self::DestinationConflict(_) => "destination-conflict",
            Self::WorkerUnknown => "worker-unknown",
            Self::HolderAway(_) => "holder-away",
            Self::ExcerptNotNow(_) => "excerpt-not-now",
            Self::ExcerptNone(_) => "excerpt-none",
            Self::ExcerptElsewhere(_) => "excerpt-elsewhere",
            Self::Unsure(_) => "unsure",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::TokenMissing | Self::TokenUnknown => StatusCode::UNAUTHORIZED,
            Self::ReadingClosed | Self::ChangesClosed | Self::TokenReadsOnly | Self::OtherSite => StatusCode::FORBIDDEN,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::StreamUnknown | Self::DestinationUnknown | Self::WorkerUnknown | Self::ExcerptNone(_) => {
                StatusCode::NOT_FOUND
            }
            Self::DestinationUnfit(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::DestinationConflict(_) | Self::ExcerptElsewhere(_) => StatusCode::CONFLICT,
            Self::HolderAway(_) => StatusCode::BAD_GATEWAY,
            Self::ExcerptNotNow(_) | Self::Unsure(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::ReadingClosed => "reading from elsewhere is closed",
            Self::ChangesClosed => "changes are closed",
            Self::TokenMissing => "the token is missing",
            Self::TokenUnknown => "the token is unknown",
            Self::TokenReadsOnly => "the token is for reading alone",
            Self::OtherSite => "a page of another site asks",
            Self::Malformed(_) => "the request cannot be understood",
            Self::StreamUnknown => "there is no such stream",
            Self::DestinationUnknown => "there is no such destination",
            Self::DestinationUnfit(_) => "the destination is not valid",
            Self::DestinationConflict(_) => "the destination cannot be changed so",
            Self::WorkerUnknown => "there is no such worker",
            Self::HolderAway(_) => "the request could not be passed on",
            Self::ExcerptNotNow(_) => "there is nothing to show at the moment",
            Self::ExcerptNone(_) => "there is no such picture",
            Self::ExcerptElsewhere(_) => "another activator has the stream",
            Self::Unsure(_) => "the demand is not known",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::ReadingClosed => {
                "no token is configured, so only requests from the activator's own machine, through no proxy, are answered: \
                 set VIEW_TOKEN or ADMIN_TOKEN and send `Authorization: Bearer TOKEN`"
            }
            Self::ChangesClosed => {
                "no token for changes is configured: set ADMIN_TOKEN and send `Authorization: Bearer TOKEN`"
            }
            Self::TokenMissing => {
                "send `Authorization: Bearer TOKEN` with the value of ADMIN_TOKEN or VIEW_TOKEN; for /stat and /control/drop/publisher the token \
                 may be the password in the URL, http://any:TOKEN@…"
            }
            Self::TokenUnknown => "the token is neither the value of ADMIN_TOKEN nor that of VIEW_TOKEN",
            Self::TokenReadsOnly => "the token is the value of VIEW_TOKEN: a change needs that of ADMIN_TOKEN",
            Self::OtherSite => {
                "the browser says that a page of another site caused this request: make it from a program"
            }
            Self::StreamUnknown => "no stream has this id now: GET /api/v1/streams lists those that there are",
            Self::WorkerUnknown => {
                "no worker has registered under this name: GET /api/v1/workers lists those that there are"
            }
            Self::DestinationUnknown => {
                "the stream has no destination of this name: GET /api/v1/streams/ID/destinations lists those that it has"
            }
            Self::DestinationUnfit(why) | Self::DestinationConflict(why) => why,
            Self::ExcerptNotNow(why) | Self::ExcerptNone(why) | Self::ExcerptElsewhere(why) => why,
            Self::Malformed(why) | Self::Unsure(why) | Self::HolderAway(why) => why,
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> Answer {
        let kind = format!("{TYPE}{}", self.as_str());
        Answer::problem(self.status(), Some((&kind, self.title())), self.detail())
    }
}
