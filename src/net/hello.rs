//! The first frame: who comes in, and who does not.

use parlor_actors::relay::link::Hello;
use parlor_protocol::{
    Code, DecodeError, Frame, FrameError, Header, Kind, Name, Token,
    message::{self, CREDENTIALS_BYTES_MAX},
    version,
};

use super::{Gate, Login};

/// The longest reason that the host's authentication may give, so that the close frame keeps its limit.
const CLOSE_CHARS_MAX: usize = 512;

/// Why a connection is closed: the code, and a sentence for a person.
pub type Closing = (Code, String);

/// The longest body behind a connection's first header.
///
/// # Errors
/// If it is not a hello's header.
pub fn body_max(header: &Header) -> Result<u32, FrameError> {
    let Header { len, kind, flags, .. } = *header;
    let max = Kind::Hello.body_bytes_max(0);
    match Kind::from_wire(kind) {
        // The caller refuses the length, which is judged before the flags.
        Some(Kind::Hello) if flags & 0xff00 == 0 || len > max => Ok(max),
        Some(Kind::Hello) => Err(FrameError::UnknownFlags { kind, flags }),
        _ => Err(FrameError::UnknownKind { kind }),
    }
}

/// What a frame error says on the wire. `first` if no hello has been read yet.
#[must_use]
pub fn closing(error: &FrameError, first: bool) -> Closing {
    let code = match error {
        FrameError::TooLarge { .. } => Code::FrameTooLarge,
        FrameError::UnknownKind { .. } if first => Code::HelloExpected,
        FrameError::UnknownKind { kind } if *kind == Kind::Hello as u16 => Code::HelloExpected,
        FrameError::UnknownKind { .. } => Code::UnknownKind,
        FrameError::UnknownFlags { .. } => Code::MalformedFrame,
    };
    (code, error.to_string())
}

/// Checks a hello.
///
/// # Errors
/// Why the connection is closed.
pub fn check(frame: &Frame<'_>, gate: &Gate) -> Result<Hello, Closing> {
    // First, so that a stranger's protocol is told apart from a damaged hello.
    if !frame.body.starts_with(&version::MAGIC) {
        return Err((Code::BadMagic, "a hello's body begins with PRLR".into()));
    }
    let malformed = |error: DecodeError| (Code::MalformedFrame, error.to_string());
    let hello: message::Hello<'_> = parlor_protocol::decode(frame.body).map_err(malformed)?;
    let (min, max) = (hello.version_min, hello.version_max);
    let Some(version) = version::choose(min, max) else {
        return Err((Code::UnsupportedVersion, format!("versions {min} to {max} are offered, 1 is spoken here")));
    };
    let name =
        |what: &str, text: &str| Name::parse(text).map_err(|error| (Code::InvalidHello, format!("{what}: {error}")));
    let (user, device) = (name("user", hello.user)?, name("device", hello.device)?);
    if hello.credentials.len() > CREDENTIALS_BYTES_MAX {
        let text = format!("credentials of {} bytes, {CREDENTIALS_BYTES_MAX} are allowed", hello.credentials.len());
        return Err((Code::InvalidHello, text));
    }
    if let Some(authenticate) = &gate.authenticate {
        let login = Login { user: hello.user, device: hello.device, credentials: hello.credentials };
        authenticate(&login).map_err(|why| (Code::Unauthorized, why.chars().take(CLOSE_CHARS_MAX).collect()))?;
    }
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|error| (Code::Internal, format!("no random bytes: {error}")))?;
    Ok(Hello {
        request: frame.header.request,
        version,
        user,
        device,
        device_class: hello.device_class,
        network: hello.network,
        token: Token(token),
        resume: hello.resume,
        attempt: hello.attempt,
    })
}
