"""Routes video-model calls over many accounts and vendors."""
