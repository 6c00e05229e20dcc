//! Every bound of the format in one place. A reader checks them before it allocates; a writer keeps them.

/// Plain bytes of one frame (SPEC 7.3).
pub const FRAME_RAW_MAX: u32 = 8 << 20;
/// Sealed bytes of one frame: an incompressible frame plus codec byte and tag, or padding.
pub const FRAME_SEALED_MAX: u32 = FRAME_RAW_MAX + 17;
/// Plain bytes of one chunk.
pub const CHUNK_MAX: u32 = 8 << 20;
/// Plain bytes of one pack: a writer closes before, a reader refuses beyond.
pub const PACK_RAW_MAX: u64 = (2 << 30) + (CHUNK_MAX as u64);
/// Bytes of one pack object.
pub const PACK_SIZE_MAX: u64 = (2 << 30) + (64 << 20);
/// Frames in one pack.
pub const PACK_FRAMES_MAX: u32 = 1 << 16;
/// Chunks in one pack.
pub const PACK_CHUNKS_MAX: u32 = 1 << 22;
/// Sealed directory of one pack.
pub const DIRECTORY_MAX: u32 = 192 << 20;
/// Records in one index run.
pub const INDEX_RECORDS_MAX: u32 = 512 << 10;
/// Packs in one index run.
pub const INDEX_PACKS_MAX: u32 = 1 << 20;
/// Bytes of one sealed small object (config, snapshot, announcement, …).
pub const OBJECT_MAX: u64 = 64 << 20;
/// Bytes of one index run object.
pub const INDEX_MAX: u64 = 192 << 20;
/// Bytes of one tree node's plaintext.
pub const NODE_MAX: u32 = 1 << 20;
/// A leaf or inner node may end from here on (SPEC 9.3).
pub const NODE_SPLIT_MIN: usize = 16 << 10;
/// Mean distance of ends behind [`NODE_SPLIT_MIN`].
pub const NODE_SPLIT_MEAN: u64 = 48 << 10;
/// A node ends here whatever the hash says.
pub const NODE_SPLIT_MAX: usize = 256 << 10;
/// A node ends where the parent paths in it, those that repeat the one before left out, sum to this. Keys share
/// prefixes, so that few bytes stand for long paths.
pub const NODE_PATHS_SPLIT: usize = 4 << 20;
/// What they can sum to at most.
pub const NODE_PATHS_MAX: usize = NODE_PATHS_SPLIT + PATH_MAX;
/// Levels of inner nodes above the leaves.
pub const TREE_LEVELS_MAX: u8 = 16;
/// One path component.
pub const NAME_MAX: usize = 4 << 10;
/// A whole path, components joined by `/`.
pub const PATH_MAX: usize = 128 << 10;
/// One encoded entry without its path.
pub const ENTRY_MAX: usize = 32 << 10;
/// A symbolic link's target.
pub const LINK_TARGET_MAX: usize = 16 << 10;
/// Chunk references inside an entry; more go to a list.
pub const INLINE_REFS_MAX: usize = 16;
/// References in one list node.
pub const LIST_REFS_MAX: usize = 1024;
/// A list node does not end before.
pub const LIST_REFS_MIN: usize = 64;
/// Levels of list nodes.
pub const LIST_LEVELS_MAX: u8 = 8;
/// Extended attributes or holes inside an entry; a larger block is one chunk.
pub const BLOCK_INLINE_MAX: usize = 4 << 10;
/// Such a chunk.
pub const BLOCK_MAX: u32 = 1 << 20;
/// Values in one CBOR object, keys of maps among them: more than a mark of an object's full length has.
pub const CBOR_VALUES_MAX: u64 = 2 << 20;
/// Nesting of CBOR.
pub const CBOR_DEPTH_MAX: u32 = 8;
/// Key slots in one repository.
pub const SLOTS_MAX: usize = 64;
/// Passphrase slots tried per open.
pub const PASSPHRASE_SLOTS_TRIED: usize = 8;
/// Argon2 memory a reader spends without being told to (KiB).
pub const ARGON2_MEMORY_MAX_KIB: u32 = 1 << 20;
/// Argon2 memory below which a writer refuses (KiB).
pub const ARGON2_MEMORY_MIN_KIB: u32 = 64 << 10;
/// Argon2 passes a reader accepts.
pub const ARGON2_PASSES_MAX: u32 = 64;
/// Argon2 lanes a reader accepts.
pub const ARGON2_LANES_MAX: u32 = 16;
/// Bytes of one parity shard.
pub const PARITY_SHARD_MAX: u32 = 1 << 20;
/// Data shards of one pack and its recovery shards, these counted as the next power of two: what the code can hold.
pub const PARITY_SHARDS_MAX: u32 = 1 << 16;
/// Bytes of one parity sidecar: at most as many recovery shards as data shards, and the lists of hashes.
pub const PARITY_MAX: u64 = PACK_SIZE_MAX + (8 << 20);
/// Compressed windows a reader accepts.
pub const ZSTD_WINDOW_MAX: u64 = 8 << 20;

const _: () = assert!(NODE_SPLIT_MAX + PATH_MAX + ENTRY_MAX + NAME_MAX < NODE_MAX as usize);
const _: () = assert!(NODE_MAX <= CHUNK_MAX && BLOCK_MAX <= CHUNK_MAX);
const _: () = assert!(LINK_TARGET_MAX + BLOCK_INLINE_MAX * 2 + INLINE_REFS_MAX * 37 + 1024 < ENTRY_MAX);
