//! Links that lead nowhere: a file that is not there may be one, and where it should lead says more than that.

use std::fs;
use std::io;
use std::path::Path;

/// What to say of `path`, where nothing is: which link on the way to it leads to what is not there; `None` where that is not why.
#[must_use]
pub fn dangling_link(path: &Path) -> Option<String> {
    for place in path.ancestors() {
        match fs::symlink_metadata(place) {
            // It has a name, so the directory above it is not at fault.
            Ok(found) => {
                let is_lost =
                    || fs::metadata(place).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
                let target = fs::read_link(place).ok().filter(|_| found.is_symlink() && is_lost())?;
                let link = if place == path { String::new() } else { format!("{} ", place.display()) };
                return Some(format!("{link}is a link to {}, which is not there", target.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_link_on_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("there")).unwrap();
        symlink("gone", path("lost")).unwrap();
        symlink("lost", path("twice")).unwrap();
        symlink("there", path("fine")).unwrap();
        assert_eq!(dangling_link(&path("lost")).unwrap(), "is a link to gone, which is not there");
        assert_eq!(dangling_link(&path("twice")).unwrap(), "is a link to lost, which is not there");
        let below = dangling_link(&path("lost/a/b")).unwrap();
        assert_eq!(below, format!("{} is a link to gone, which is not there", path("lost").display()));
        for fine in ["there", "fine", "there/nothing", "fine/nothing", "nothing/at/all"] {
            assert_eq!(dangling_link(&path(fine)), None, "{fine}");
        }
    }
}
