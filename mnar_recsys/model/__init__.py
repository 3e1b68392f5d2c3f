"""The joint model of ratings and their mask, one file for each term of the bound.

======  ===========  ==============================================  =========================
symbol  shape        meaning                                         where
======  ===========  ==============================================  =========================
x, s    (B, P)       ratings (rating points) and mask, as pairs      ``batch``
z       (S, B, K)    latent taste, and activity as its last entry    ``mnar_vae``
q(z|x)               set encoder                                     ``encoder``, ``latent``
p(x|z)               decoder                                         ``decoders``
p(s|x)               missing model, logit pi_ij (eq. 11)             ``missing``
log w   (S, B)       eq. 9, in nats a user                           ``bound``
L_S     (B,)         eq. 8, higher is better                         ``bound``
======  ===========  ==============================================  =========================

Eq. numbers are those of Ipsen, Mattei & Frellsen, "not-MIWAE", ICLR 2021. S samples, B users, P items, K latent
size, R rating levels, Q support points, n observed pairs. The sample axis comes first, items last.
"""
