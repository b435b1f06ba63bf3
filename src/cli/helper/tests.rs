//! What mount(8) says, and which command line it becomes.

use std::ffi::OsString;

use clap::Parser;
use proptest::prelude::*;

use super::super::args::{Arguments, Command, MountArgs};
use super::*;

fn helper(words: &[&str]) -> Result<Vec<String>, String> {
    let words: Vec<&str> = ["/sbin/mount.ckpt-fs"].iter().chain(words).copied().collect();
    let args = HelperArgs::try_parse_from(words).map_err(|error| error.to_string())?;
    let translated = translate(&args).map_err(|error| error.to_string())?;
    Ok(translated.into_iter().map(|word| word.into_string().unwrap()).collect())
}

/// As `ckpt-fs mount` reads what comes out.
fn mount(words: &[OsString]) -> MountArgs {
    let Command::Mount(args) = Arguments::try_parse_from(words).unwrap().command else { panic!() };
    args
}

#[test]
fn it_is_called_by_its_name() {
    for name in ["mount.ckpt-fs", "/sbin/mount.ckpt-fs", "/usr/sbin/mount.fuse.ckpt-fs"] {
        assert!(is_called(OsStr::new(name)), "{name}");
    }
    for name in ["ckpt-fs", "/usr/bin/ckpt-fs", "mount", "mount.ckpt-fs/ckpt-fs", "/proc/self/exe", ""] {
        assert!(!is_called(OsStr::new(name)), "{name}");
    }
}

#[test]
fn command_lines_become_those_of_mount() {
    let table: &[(&[&str], &str)] = &[
        (&["/src", "/mnt"], "-- /src /mnt"),
        (&["/src", "/mnt", "-o", "rw"], "-o rw -- /src /mnt"),
        (
            &["/src", "/mnt", "-n", "-o", "tp=8,pp=4,as=hf,allow_other,ro"],
            "--tp=8 --pp=4 --as=hf --allow-other -o ro -- /src /mnt",
        ),
        (&["-o", "tp=8", "/src", "-o", "pp=4", "/mnt"], "--tp=8 --pp=4 -- /src /mnt"),
        (
            &["/src", "/mnt", "-o", r"rw,pp-layers=10\,32,vpp=1"],
            "-o rw --pp-layers=10,32 --vpp=1 -- /src /mnt",
        ),
        (&["/src", "/mnt", "-o", r#"pp_layers="10,32""#], "--pp-layers=10,32 -- /src /mnt"),
        (&["/src", "/mnt", "-o", r#"context="a:b:c0\,c1""#], r"-o context=a:b:c0\,c1 -- /src /mnt"),
        (&["/src", "/mnt", "-o", "pp-layout=Et*2|t*3|tL"], "--pp-layout=Et*2|t*3|tL -- /src /mnt"),
        (&["/src", "/mnt", "-o", r"template=/a\040b"], "--template=/a b -- /src /mnt"),
        (
            &["/src", "/mnt", "-o", "tensor-parallel-size=8,uid=5"],
            "--tensor-parallel-size=8 --uid=5 -- /src /mnt",
        ),
        (
            &[
                "/src",
                "/mnt",
                "-o",
                "dev,suid,exec,async,user,_netdev,nofail,x-systemd.automount,X-mount.mkdir=755",
            ],
            "-o exec -o async -o _netdev -o nofail -- /src /mnt",
        ),
        (&["/src", "/mnt", "-o", "user=me,uhelper=x,,noexec"], "-o noexec -- /src /mnt"),
        (
            &["/src", "/mnt", "-sfnv", "-t", "fuse.ckpt-fs", "-o", "nonsense,tp=2"],
            "--tp=2 --dry-run -- /src /mnt",
        ),
        (&["-s", "--", "-src", "-mnt"], "-- -src -mnt"),
    ];
    for (words, wanted) in table {
        assert_eq!(
            helper(words).map(|words| words.join(" ")),
            Ok(format!("ckpt-fs mount {wanted}")),
            "{words:?}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &["/src", "/mnt", "-o", "tp=8,nonsense=3"],
            &["unknown mount option nonsense=3", "tp, pp, vpp", "allow-other", "noexec, fsname"],
        ),
        // What clap adds is no option of a mount.
        (&["/src", "/mnt", "-o", "help"], &["unknown mount option help"]),
        (&["/src", "/mnt", "-o", "tp"], &["the mount option tp needs a value: tp=.."]),
        (&["/src", "/mnt", "-o", "remount,ro"], &["unmount it and mount it again"]),
        (&["/src", "/mnt", "-N", "/proc/7/ns/mnt"], &["nsenter --mount=/proc/7/ns/mnt ckpt-fs mount"]),
        (&["/src"], &["<MOUNTPOINT>"]),
        (&["/src", "/mnt", "more"], &["unexpected argument 'more'"]),
        (&["/src", "/mnt", "-z"], &["unexpected argument '-z'"]),
    ];
    for (words, wanted) in table {
        let said = helper(words).unwrap_err();
        assert!(wanted.iter().all(|words| said.contains(words)), "{words:?}: {said}");
    }
}

#[test]
fn every_long_option_is_an_option() {
    let root = Arguments::command();
    let arguments = root.find_subcommand(MOUNT).unwrap().get_arguments();
    let mut seen = 0;
    for argument in arguments {
        let Some(long) = argument.get_long() else { continue };
        let takes = argument.get_action().takes_values();
        let option = if takes { format!("{long}=1") } else { long.to_owned() };
        let wanted = format!("ckpt-fs mount --{option} -- a b");
        assert_eq!(helper(&["a", "b", "-o", &option]).unwrap().join(" "), wanted);
        assert_eq!(helper(&["a", "b", "-o", &option.replace('-', "_")]).unwrap().join(" "), wanted);
        seen += 1;
    }
    assert!(seen > 20);
}

proptest! {
    /// Whatever a path holds, mount reads it as it was.
    #[test]
    fn paths_come_through(source in "/\\PC{0,20}", point in "/\\PC{0,20}", template in "\\PC{1,20}", name in "\\PC{0,20}") {
        let mut list = OsString::from("ro,template=");
        list.push(options::escape(OsStr::new(&template)));
        list.push(",fsname=");
        list.push(options::escape(OsStr::new(&name)));
        let words = ["mount.ckpt-fs".into(), OsString::from(&source), (&point).into(), "-o".into(), list];
        let args = mount(&translate(&HelperArgs::try_parse_from(words).unwrap()).unwrap());
        prop_assert_eq!(args.source, PathBuf::from(source));
        prop_assert_eq!(args.mountpoint, PathBuf::from(point));
        prop_assert_eq!(args.from.template, Some(PathBuf::from(template)));
        let options: Vec<String> = args.options.into_iter().flat_map(|list| list.0).collect();
        prop_assert_eq!(options, ["ro".to_owned(), format!("fsname={name}")]);
    }

    /// Nothing that is said breaks it.
    #[test]
    fn any_options_are_translated_or_refused(text in ".{0,60}") {
        let _ = helper(&["a", "b", &format!("-o{text}")]);
    }
}
