"""A model for llama.cpp that needs no download: Llama's architecture, random weights, bytes as tokens.

`python tiny_gguf.py FILE` writes it; it runs in an environment of its own, with `gguf` and `numpy`.
"""

# Its packages are in that environment only.
# mypy: ignore-errors

import sys

import gguf
import numpy as np

WIDTH, INNER, HEADS, CONTEXT = 32, 64, 2, 512
SPECIAL = ["<unk>", "<s>", "</s>"]
TOKENS = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
TYPES = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]


def main(file: str) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(TYPES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, shape in shapes().items():
        writer.add_tensor(f"{name}.weight", weights(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def shapes() -> dict[str, tuple[int, ...]]:
    square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
    norms = dict.fromkeys(("attn_norm", "ffn_norm"), (WIDTH,))
    inner = {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    block = {f"blk.0.{name}": shape for name, shape in (square | norms | inner).items()}
    return {"token_embd": (len(TOKENS), WIDTH), **block, "output_norm": (WIDTH,), "output": (len(TOKENS), WIDTH)}


def weights(shape: tuple[int, ...]) -> np.ndarray:
    """Norms are ones; the rest is random, and the same each time."""
    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


if __name__ == "__main__":
    main(sys.argv[1])
