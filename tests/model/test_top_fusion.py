"""A layer of fusion on top against its definition."""

import torch

from fiber_cli.model.top_fusion import TopAttention, TopLayer


@torch.no_grad()
def test_attention_is_not_by_its_definition():
    torch.manual_seed(0)
    attention = TopAttention(8, 2, dropout=0.0).eval()
    x, seen = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    mask = torch.tensor([True, True, True, False]).view(1, 1, 1, 4)
    heads = []
    for head in range(2):
        columns = slice(4 * head, 4 * head + 4)
        q, k, v = (
            layer(tokens)[0, :, columns]
            for layer, tokens in ((attention.query, x), (attention.key, seen), (attention.value, seen))
        )
        weights = (q @ k[:3].T / 2).softmax(1)
        heads.append(weights @ v[:3])
    torch.testing.assert_close(attention(x, seen, mask)[0], attention.out(torch.cat(heads, 1)))


@torch.no_grad()
def test_the_first_tokens_alone_differ_from_the_whole():
    torch.manual_seed(0)
    layer = TopLayer(8, 2, 16, dropout=0.0, norm_eps=1e-5).eval()
    x, other = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(x, mask, other, None, first=1), layer(x, mask, other, None)[:, :1])
