use super::*;

#[tokio::test]
async fn a_directory_keeps_its_files_whether_its_rename_survives_or_not() {
    let mut names = BTreeSet::new();
    for seed in 0..64u64 {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("top/new")).await.unwrap();
        for name in ["top/new/a", "top/new/b"] {
            disk.create(Path::new(name)).await.unwrap();
        }
        disk.sync_dir(Path::new("top/new")).await.unwrap();
        disk.rename(Path::new("top/new"), Path::new("top/old")).await.unwrap();
        assert_eq!(disk.list(Path::new("top")).await.unwrap(), [PathBuf::from("old")]);
        disk.remove(Path::new("top/old/a")).await.unwrap();
        let mut bits = seed;
        disk.crash(&mut |n| {
            bits = bits.rotate_right(1);
            (bits >> 63) % n
        });
        let left = disk.list(Path::new("top")).await.unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(disk.list(&Path::new("top").join(&left[0])).await.unwrap().contains(&PathBuf::from("b")));
        names.insert(disk.paths());
    }
    assert_eq!(names.len(), 4, "renamed or not, with the removal or without: {names:?}");
}

#[tokio::test]
async fn a_directory_whose_removal_is_synced_takes_nothing_from_another_of_its_name() {
    for seed in 0..64u64 {
        let disk = SimDisk::new();
        for round in 0..2 {
            disk.create_dir(Path::new("top/new")).await.unwrap();
            for name in ["top/new/a", "top/new/b"] {
                disk.create(Path::new(name)).await.unwrap();
            }
            disk.sync_dir(Path::new("top/new")).await.unwrap();
            disk.rename(Path::new("top/new"), Path::new("top/it")).await.unwrap();
            disk.sync_dir(Path::new("top")).await.unwrap();
            if round == 0 {
                disk.remove(Path::new("top/it")).await.unwrap();
                disk.sync_dir(Path::new("top")).await.unwrap();
            }
        }
        let mut bits = seed;
        disk.crash(&mut |n| {
            bits = bits.rotate_right(1);
            (bits >> 63) % n
        });
        assert_eq!(disk.paths(), [PathBuf::from("top/it/a"), PathBuf::from("top/it/b")], "choices {seed:b}");
    }
}

#[tokio::test]
async fn what_a_failed_sync_gave_up_no_later_one_writes() {
    let disk = SimDisk::new();
    let mut file = disk.create(Path::new("a")).await.unwrap();
    disk.sync_dir(Path::new("")).await.unwrap();
    file.append(Bytes::from_static(b"one")).await.unwrap();
    file.sync().await.unwrap();
    file.append(Bytes::from_static(b"two")).await.unwrap();
    disk.fail_sync(1);
    assert!(file.sync().await.is_err());
    file.append(Bytes::from_static(b"three")).await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(disk.bytes(Path::new("a")), b"onetwothree", "the cache has it all");
    disk.crash(&mut |n| n - 1);
    assert_eq!(disk.bytes(Path::new("a")), b"one\0\0\0three");
}

#[tokio::test]
async fn names_that_a_failed_sync_of_their_directory_did_not_cover_may_be_lost() {
    let left = async |fails: bool| {
        let disk = SimDisk::new();
        disk.create(Path::new("wal/a")).await.unwrap();
        if fails {
            disk.fail_sync(1);
        }
        let synced = disk.sync_dir(Path::new("wal")).await;
        assert_eq!((synced.is_err(), disk.strikes().failed_syncs), (fails, u64::from(fails)));
        disk.crash(&mut |_| 0);
        disk.paths()
    };
    assert_eq!(left(false).await, [PathBuf::from("wal/a")]);
    assert!(left(true).await.is_empty());
}

#[tokio::test]
async fn synced_bytes_and_names_survive_every_choice_and_others_only_some() {
    let mut kept = BTreeSet::new();
    for seed in 0..64u64 {
        let disk = SimDisk::new();
        let mut file = disk.create(Path::new("a")).await.unwrap();
        file.append(Bytes::from_static(b"synced")).await.unwrap();
        file.sync().await.unwrap();
        disk.sync_dir(Path::new("")).await.unwrap();
        file.append(Bytes::from_static(b"rest")).await.unwrap();
        disk.create(Path::new("b")).await.unwrap();
        let mut state = seed;
        disk.crash(&mut |n| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        });
        let bytes = disk.bytes(Path::new("a"));
        assert!(bytes.starts_with(b"synced"));
        assert!(file.append(Bytes::new()).await.is_err(), "opened before the crash");
        kept.insert((bytes.len(), disk.paths().len()));
    }
    assert!(kept.len() > 5, "the crashes differ: {kept:?}");
}

#[tokio::test]
async fn a_judge_looks_at_what_is_removed_while_it_is_still_there() {
    let disk = SimDisk::new();
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (noted, looked_at) = (seen.clone(), disk.clone());
    disk.before_removals(move || {
        let files = looked_at.durable(|durable| durable.below(Path::new("wal")).count());
        noted.lock().unwrap().push(files);
    });
    let mut file = disk.create(Path::new("wal/1")).await.unwrap();
    file.sync().await.unwrap();
    disk.sync_dir(Path::new("wal")).await.unwrap();
    disk.remove(Path::new("wal/1")).await.unwrap();
    disk.sync_dir(Path::new("elsewhere")).await.unwrap();
    disk.sync_dir(Path::new("wal")).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [1]);
    assert_eq!(disk.durable(|durable| durable.below(Path::new("wal")).count()), 0);
}

#[tokio::test]
async fn a_second_name_leads_to_the_same_file_and_outlives_the_first() {
    let disk = SimDisk::new();
    let mut file = disk.create(Path::new("a")).await.unwrap();
    file.append(Bytes::from_static(b"one")).await.unwrap();
    file.sync().await.unwrap();
    disk.link(Path::new("a"), Path::new("b")).await.unwrap();
    assert_eq!(disk.link(Path::new("a"), Path::new("b")).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    disk.sync_dir(Path::new("")).await.unwrap();
    disk.remove(Path::new("a")).await.unwrap();
    disk.sync_dir(Path::new("")).await.unwrap();
    disk.flip(Path::new("b"), 0, 0);
    disk.crash(&mut |_| 0);
    assert_eq!(disk.paths(), [PathBuf::from("b")]);
    assert_eq!(disk.bytes(Path::new("b")), b"nne");
}
