//! The opcodes, named as `pickletools` names them.
//!
//! Not here: what they do (`machine`, `encode`).

macro_rules! opcodes {
    ($($name:ident = $code:literal,)*) => {
        $(pub(super) const $name: u8 = $code;)*

        /// Name of an opcode, for errors.
        pub(super) fn name(code: u8) -> &'static str {
            match code {
                $($code => stringify!($name),)*
                b'i' => "INST",
                b'o' => "OBJ",
                b'P' => "PERSID",
                b'S' => "STRING",
                b'T' => "BINSTRING",
                b'U' => "SHORT_BINSTRING",
                b'V' => "UNICODE",
                0x82 => "EXT1",
                0x83 => "EXT2",
                0x84 => "EXT4",
                0x92 => "NEWOBJ_EX",
                0x96 => "BYTEARRAY8",
                0x97 => "NEXT_BUFFER",
                0x98 => "READONLY_BUFFER",
                _ => "unknown",
            }
        }
    };
}

opcodes! {
    MARK = b'(',
    EMPTY_TUPLE = b')',
    STOP = b'.',
    POP = b'0',
    POP_MARK = b'1',
    DUP = b'2',
    BINBYTES = b'B',
    SHORT_BINBYTES = b'C',
    FLOAT = b'F',
    BINFLOAT = b'G',
    INT = b'I',
    BININT = b'J',
    BININT1 = b'K',
    LONG = b'L',
    BININT2 = b'M',
    NONE = b'N',
    BINPERSID = b'Q',
    REDUCE = b'R',
    BINUNICODE = b'X',
    EMPTY_LIST = b']',
    APPEND = b'a',
    BUILD = b'b',
    GLOBAL = b'c',
    DICT = b'd',
    APPENDS = b'e',
    GET = b'g',
    BINGET = b'h',
    LONG_BINGET = b'j',
    LIST = b'l',
    PUT = b'p',
    BINPUT = b'q',
    LONG_BINPUT = b'r',
    SETITEM = b's',
    TUPLE = b't',
    SETITEMS = b'u',
    EMPTY_DICT = b'}',
    PROTO = 0x80,
    NEWOBJ = 0x81,
    TUPLE1 = 0x85,
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    LONG1 = 0x8a,
    LONG4 = 0x8b,
    SHORT_BINUNICODE = 0x8c,
    BINUNICODE8 = 0x8d,
    BINBYTES8 = 0x8e,
    EMPTY_SET = 0x8f,
    ADDITEMS = 0x90,
    FROZENSET = 0x91,
    STACK_GLOBAL = 0x93,
    MEMOIZE = 0x94,
    FRAME = 0x95,
}

/// What an opcode has to do with the memo, and what follows it in the bytes.
#[derive(Clone, Copy)]
pub(super) enum Operand {
    /// So many bytes.
    Bytes(u8),
    /// A length of so many bytes, and as many bytes as it says.
    Counted(u8),
    /// So many lines of text.
    Lines(u8),
    /// Ends the pickle.
    Stop,
    /// Gives a value the next number.
    Memoize,
    /// Gives a value the number in so many bytes.
    Put(u8),
    /// Gives a value the number in a line.
    PutLine,
    /// Fetches the value of the number in so many bytes.
    Get(u8),
    /// Fetches the value of the number in a line.
    GetLine,
}

/// The operand of each opcode: nothing where it is not known, because nobody goes on behind it.
pub(super) const fn operands() -> [Operand; 256] {
    let mut all = [Operand::Bytes(0); 256];
    let mut code = 0;
    while code < 256 {
        #[expect(clippy::indexing_slicing, reason = "the array is as long as there are codes")]
        {
            all[code] = operand(code as u8);
        }
        code += 1;
    }
    all
}

const fn operand(code: u8) -> Operand {
    match code {
        STOP => Operand::Stop,
        MEMOIZE => Operand::Memoize,
        BINPUT => Operand::Put(1),
        LONG_BINPUT => Operand::Put(4),
        PUT => Operand::PutLine,
        BINGET => Operand::Get(1),
        LONG_BINGET => Operand::Get(4),
        GET => Operand::GetLine,
        BININT1 | PROTO => Operand::Bytes(1),
        BININT2 => Operand::Bytes(2),
        BININT => Operand::Bytes(4),
        BINFLOAT | FRAME => Operand::Bytes(8),
        LONG1 | SHORT_BINUNICODE | SHORT_BINBYTES => Operand::Counted(1),
        LONG4 | BINUNICODE | BINBYTES => Operand::Counted(4),
        BINUNICODE8 | BINBYTES8 => Operand::Counted(8),
        INT | LONG | FLOAT => Operand::Lines(1),
        GLOBAL => Operand::Lines(2),
        _ => Operand::Bytes(0),
    }
}
