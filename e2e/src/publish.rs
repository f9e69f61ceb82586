//! Encoders. In: a URL and the media to publish. Out: a guard around the program.
//!
//! Note: ffmpeg says goodbye on SIGINT, and so does gst-launch with `-e`; neither does on SIGKILL. OBS needs a screen (Xvfb), a session bus
//! and a home of its own, and then streams without user interaction.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::process::{Program, RunningProgram, descendants, program, signal};
use crate::record::{Message, read_flv};
use crate::wait::{LONG, SOON, now, try_until};

/// Kinds of media to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// H.264 and AAC.
    Both,
    /// AAC alone.
    AudioOnly,
    /// MP3 of 48,000 and one channel, alone.
    Mp3,
    /// H.264 alone.
    VideoOnly,
    /// H.264 of 8 Mbit/s, and AAC.
    Heavy,
    /// HEVC by Enhanced RTMP, and AAC.
    Hevc,
    /// AV1 by Enhanced RTMP, and AAC.
    Av1,
}

const PICTURE: &str = "-re -f lavfi -i testsrc2=size=320x180:rate=25";
/// Noise, which an encoder cannot make small.
const NOISE: &str = "-re -f lavfi -i testsrc2=size=640x360:rate=25,noise=alls=60:allf=t+u";
const HEAVY: &str =
    "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 25 -b:v 8M -maxrate 8M -bufsize 8M";
const SOUND: &str = "-re -f lavfi -i sine=frequency=440:sample_rate=44100";
/// A rate that the head of a tag cannot say.
const SOUND_OF_48000: &str = "-re -f lavfi -i sine=frequency=440:sample_rate=48000";
const MP3: &str = "-c:a libmp3lame -b:a 64k -flvflags no_metadata";
/// A keyframe every second, so that scenarios about keyframes do not wait long.
const H264: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 25 -b:v 300k";
const HEVC: &str = "-c:v libx265 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -x265-params log-level=error:keyint=25:min-keyint=25:pools=1";
const AV1: &str = "-c:v libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -pix_fmt yuv420p -g 25 -b:v 300k";
const AAC: &str = "-c:a aac -b:a 64k";

/// Starts ffmpeg, which publishes a moving test picture and a tone in real time until it is ended.
#[must_use]
pub fn ffmpeg(media: Media, url: &str) -> RunningProgram {
    let (program, input) = match media {
        Media::Both => (PathBuf::from("ffmpeg"), format!("{PICTURE} {SOUND} {H264} {AAC}")),
        Media::Heavy => (PathBuf::from("ffmpeg"), format!("{NOISE} {SOUND} {HEAVY} {AAC}")),
        Media::AudioOnly => (PathBuf::from("ffmpeg"), format!("{SOUND} {AAC}")),
        Media::Mp3 => (PathBuf::from("ffmpeg"), format!("{SOUND_OF_48000} {MP3}")),
        Media::VideoOnly => (PathBuf::from("ffmpeg"), format!("{PICTURE} {H264}")),
        Media::Hevc => (newer_ffmpeg(), format!("{PICTURE} {SOUND} {HEVC} {AAC} -rtmp_enhanced_codecs hvc1")),
        Media::Av1 => (newer_ffmpeg(), format!("{PICTURE} {SOUND} {AV1} {AAC} -rtmp_enhanced_codecs av01")),
    };
    let started = Program::new("ffmpeg", program).words("-hide_banner -nostdin -v info -nostats").words(&input);
    started.args(["-f", "flv", url]).start()
}

/// Encodes H.264 and AAC of so many seconds, interleaved by ffmpeg.
///
/// # Panics
/// ffmpeg cannot encode them.
#[must_use]
pub fn clip(seconds: u32) -> Vec<Message> {
    encoded(&format!("{PICTURE} {SOUND}"), H264, seconds)
}

/// Encodes like [`clip`], with keyframes of more than 50 kB.
///
/// # Panics
/// ffmpeg cannot encode them.
#[must_use]
pub fn heavy_clip(seconds: u32) -> Vec<Message> {
    encoded(&format!("{NOISE} {SOUND}"), HEAVY, seconds)
}

fn encoded(input: &str, video: &str, seconds: u32) -> Vec<Message> {
    let program = Program::new("clip", "ffmpeg").words("-hide_banner -nostdin -v error");
    let file = program.directory().join("clip.flv");
    let input = input.replace("-re ", "");
    let program = program.words(&format!("{input} -t {seconds} {video} {AAC} -f flv")).arg(&file);
    let mut ffmpeg = program.start();
    assert!(ffmpeg.wait(LONG).success(), "{}", ffmpeg.log());
    read_flv(&fs::read(file).expect("the clip"), now())
}

/// An ffmpeg that knows Enhanced RTMP: `tools/setup.sh` takes it from the PyPI package `imageio-ffmpeg`.
///
/// # Panics
/// The binary is missing.
#[must_use]
pub fn newer_ffmpeg() -> PathBuf {
    let path = root().join(".tools/ffmpeg");
    assert!(path.exists(), "{} is not there; ./tools/setup.sh --tests puts it there", path.display());
    path
}

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// RTMP elements of GStreamer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gst {
    /// `rtmp2sink`, an implementation of GStreamer's own.
    Rtmp2Sink,
    /// `rtmpsink`, which uses librtmp.
    RtmpSink,
}

/// Starts GStreamer, which publishes a moving test picture and a tone in real time until it is ended.
#[must_use]
pub fn gstreamer(sink: Gst, url: &str) -> RunningProgram {
    let sink = match sink {
        Gst::Rtmp2Sink => format!("rtmp2sink location={url}"),
        Gst::RtmpSink => format!("rtmpsink location={url}"),
    };
    Program::new("gst-launch", "gst-launch-1.0")
        .words("-e flvmux streamable=true name=mux !")
        .words(&sink)
        .words("videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=25/1 !")
        .words("x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=300 ! queue ! mux.")
        .words("audiotestsrc is-live=true volume=0.1 ! audio/x-raw,rate=44100,channels=2 ! voaacenc ! queue ! mux.")
        .start()
}

/// The real OBS Studio, with its own screen and home.
#[derive(Debug)]
pub struct Obs {
    obs: RunningProgram,
    _screen: RunningProgram,
}

impl Obs {
    /// Starts OBS, which streams to `server` (up to the application) with `key`.
    ///
    /// # Panics
    /// The files cannot be written, or there is no screen.
    #[must_use]
    pub fn streaming_to(server: &str, key: &str) -> Self {
        Self::start(Program::new("obs", "dbus-run-session").clear_env(), "-- obs", server, key)
    }

    /// Starts OBS like [`Self::streaming_to`], on a system on which `host` is the name of `address`, and which trusts this authority alone.
    /// Note: OBS reads `/etc/ssl/certs` and verifies names only, no addresses. So it gets a mount namespace of its own.
    ///
    /// # Panics
    /// As [`Self::streaming_to`].
    #[must_use]
    pub fn trusting(authority: &Path, host: &str, address: IpAddr, server: &str, key: &str) -> Self {
        const SCRIPT: &str = "mount --bind \"$CERTS\" /etc/ssl/certs && mount --bind \"$HOSTS\" /etc/hosts && exec dbus-run-session -- obs \"$@\"";
        let program = Program::new("obs", "unshare");
        let (certificates, hosts) = (program.directory().join("certs"), program.directory().join("hosts"));
        fs::create_dir(&certificates).expect("a directory");
        fs::copy(authority, certificates.join("authority.pem")).expect("the certificate");
        fs::write(&hosts, format!("127.0.0.1 localhost\n{address} {host}\n")).expect("a file");
        let program = program.clear_env().env("CERTS", certificates).env("HOSTS", hosts);
        let root = rustix::process::geteuid().is_root();
        let program = program.arg("--mount").args((!root).then_some("--map-root-user"));
        Self::start(program.args(["sh", "-c", SCRIPT, "obs"]), "", server, key)
    }

    fn start(obs: Program, before: &str, server: &str, key: &str) -> Self {
        let mut screen = Program::new("Xvfb", "Xvfb").words("-displayfd 1 -screen 0 1024x768x24 -nolisten tcp").start();
        let display = try_until(SOON, || {
            assert!(screen.is_running(), "Xvfb ended: {}", screen.log());
            screen.log().lines().find_map(|line| line.trim().parse::<u32>().ok())
        });
        let display = display.expect("the number of the display");
        let home = obs.directory().to_owned();
        let studio = home.join("config/obs-studio");
        for directory in ["basic/profiles/Test", "basic/scenes"] {
            fs::create_dir_all(studio.join(directory)).expect("a directory");
        }
        let runtime = home.join("run");
        fs::create_dir(&runtime).expect("a directory");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&runtime, private).expect("its permissions");
        let service = serde_json::json!({"type": "rtmp_custom", "settings": {"server": server, "key": key}});
        let files = [
            ("global.ini", GLOBAL.to_owned()),
            ("basic/profiles/Test/basic.ini", PROFILE.to_owned()),
            ("basic/profiles/Test/service.json", service.to_string()),
            ("basic/scenes/Test.json", SCENES.to_owned()),
        ];
        for (name, text) in files {
            fs::write(studio.join(name), text).expect("a file");
        }
        let obs = obs
            .env("DISPLAY", format!(":{display}"))
            .env("QT_QPA_PLATFORM", "xcb")
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_RUNTIME_DIR", &runtime)
            .words(before)
            .words("--multi --startstreaming --profile Test --collection Test")
            .words("--disable-missing-files-check --verbose")
            .start();
        Self { obs, _screen: screen }
    }

    /// The log of OBS.
    #[must_use]
    pub fn log(&self) -> String {
        self.obs.log()
    }

    /// Ends OBS as a user does: it stops the stream and exits.
    pub fn quit(&mut self) {
        for id in descendants(self.obs.id()) {
            if program(id).is_some_and(|path| path.ends_with("obs")) {
                signal(id, Signal::TERM);
            }
        }
        let _ = try_until(SOON, || self.obs.ended());
    }
}

impl Drop for Obs {
    fn drop(&mut self) {
        self.quit();
    }
}

const GLOBAL: &str = "[General]
FirstRun=true
EnableAutoUpdates=false
LastVersion=486539266
InfoIncrement=100
[Basic]
Profile=Test
ProfileDir=Test
SceneCollection=Test
SceneCollectionFile=Test
[BasicWindow]
WarnBeforeStoppingStream=false
";

const PROFILE: &str = "[General]
Name=Test
[Output]
Mode=Simple
Reconnect=true
RetryDelay=2
[SimpleOutput]
VBitrate=300
ABitrate=64
StreamEncoder=x264
UseAdvanced=true
Preset=ultrafast
x264Settings=keyint=30
[Video]
BaseCX=640
BaseCY=360
OutputCX=320
OutputCY=180
FPSType=0
FPSCommon=30
";

const SCENES: &str = r##"{"name":"Test","current_scene":"Scene","current_program_scene":"Scene",
"scene_order":[{"name":"Scene"}],
"sources":[{"id":"scene","name":"Scene","settings":{"items":[],"id_counter":0}}]}"##;
