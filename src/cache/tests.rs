//! What is kept, what gives way, and what is not worth keeping.

use super::*;

fn key(tile: u64) -> TileKey {
    TileKey { reader: 0, stripe: [0; 32], tile }
}

/// Reads tile `tile` as the reader does: looks for it and keeps it where that is wanted. Says what it found.
fn read(cache: &Cache, tile: u64) -> &'static str {
    match cache.tile(key(tile), true) {
        Lookup::Kept(_) => "kept",
        Lookup::Wanted => {
            cache.keep_tile(key(tile), vec![tile as u8; TILE as usize].into());
            "wanted"
        }
        Lookup::Passing => "passing",
    }
}

#[test]
fn a_tile_is_kept_when_it_is_read_again() {
    let cache = Cache::new(4 * TILE, None);
    assert_eq!([1, 1, 1, 1].map(|tile| read(&cache, tile)), ["passing", "wanted", "kept", "kept"]);
    // The middle of a tile says nothing about its being read again.
    assert!((0..3).all(|_| matches!(cache.tile(key(2), false), Lookup::Passing)));
    assert_eq!(read(&cache, 2), "passing");
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.tiles, stats.tile_bytes), (2, 3, 1, TILE));
}

#[test]
fn the_least_used_give_way() {
    let cache = Cache::new(2 * TILE, None);
    for tile in [1, 1, 2, 2] {
        read(&cache, tile);
    }
    assert_eq!(read(&cache, 1), "kept");
    assert_eq!([3, 3].map(|tile| read(&cache, tile)), ["passing", "wanted"]);
    assert_eq!([1, 3, 2].map(|tile| read(&cache, tile)), ["kept", "kept", "passing"]);
    assert_eq!(cache.stats().evicted, 1);
    assert!(cache.stats().tile_bytes <= cache.stats().budget);
}

#[test]
fn nothing_is_added_where_memory_is_short() {
    let mut cache = Cache::new(64 * TILE, None);
    cache.memory = || Some(Memory { limit: 80, available: 10 });
    assert_eq!([1, 1, 1].map(|tile| read(&cache, tile)), ["passing", "wanted", "kept"]);
    cache.memory = || Some(Memory { limit: 80, available: 9 });
    for tile in 2..2 + ASK_EVERY {
        assert_eq!([tile, tile].map(|tile| read(&cache, tile)), ["passing", "wanted"]);
    }
    let kept = cache.stats().tiles;
    assert!((1..=ASK_EVERY).contains(&kept));
    assert_eq!([100, 100, 100, 1].map(|tile| read(&cache, tile)), ["passing", "wanted", "wanted", "kept"]);
    cache.memory = || None;
    for tile in 200..200 + ASK_EVERY {
        read(&cache, tile);
        read(&cache, tile);
    }
    assert!(cache.stats().tiles > kept);
}

#[test]
fn what_is_read_in_a_circle_too_large_is_never_kept() {
    let cache = Cache::new(4 * TILE, None);
    for _ in 0..3 {
        assert!((0..5).all(|tile| read(&cache, tile) == "passing"));
    }
    assert_eq!(cache.stats().tiles, 0);
}

#[test]
fn without_room_nothing_is_kept() {
    for budget in [0, TILE - 1] {
        let cache = Cache::new(budget, None);
        assert!((0..3).all(|_| read(&cache, 1) == "passing"));
        cache.keep_tile(key(1), vec![0; TILE as usize].into());
        assert_eq!(cache.stats().tiles, 0);
    }
}

#[test]
fn what_is_in_use_stays() {
    let cache = Cache::new(2 * TILE, None);
    for tile in [1, 1, 2, 2] {
        read(&cache, tile);
    }
    let Lookup::Kept(first) = cache.tile(key(1), false) else { panic!() };
    let Lookup::Kept(second) = cache.tile(key(2), false) else { panic!() };
    assert_eq!([3, 3, 3].map(|tile| read(&cache, tile)), ["passing", "wanted", "wanted"]);
    drop(second);
    assert_eq!([3, 3, 1].map(|tile| read(&cache, tile)), ["wanted", "kept", "kept"]);
    assert_eq!(first[0], 1);
}

/// Needs the right to mount, as the mounts of other tests do.
#[test]
fn files_and_tiles_share_the_room() {
    let cache = Cache::new(4 * TILE, MemoryFiles::new(4 * TILE).ok());
    assert!(cache.could_keep(4 * TILE) && !cache.could_keep(4 * TILE + 1));
    for tile in [1, 1, 2, 2] {
        read(&cache, tile);
    }
    let reserved = cache.new_file(3 * TILE).unwrap();
    assert_eq!((cache.stats().tiles, cache.stats().file_bytes), (1, 3 * TILE));
    assert!(cache.new_file(2 * TILE).is_none());
    reserved.file().unwrap().write_at(0, &vec![9; 3 * TILE as usize]).unwrap();
    let file = reserved.keep(FileKey(5)).unwrap();
    assert_eq!(cache.stats().file_bytes, 3 * TILE);
    // Held by somebody: it cannot give way.
    assert!(cache.new_file(2 * TILE).is_none());
    drop(file);
    assert!(cache.file(FileKey(5)).is_some());
    assert!(cache.new_file(2 * TILE).is_some());
    assert!(cache.file(FileKey(5)).is_none());
    // A reservation that came to nothing leaves nothing behind.
    assert_eq!(cache.stats().file_bytes, 0);
    assert!(cache.new_file(4 * TILE).is_some());
}
