-- Reads whose store this is; in an empty one, writes it. KEYS: the identity.
-- ARGV: application, partitions, format, buckets.
-- Reply: application, partitions, format, buckets.
local have = redis.call('HMGET', KEYS[1], 'app', 'partitions', 'format', 'buckets')
if not have[1] then
  redis.call('HSET', KEYS[1], 'app', ARGV[1], 'partitions', ARGV[2], 'format', ARGV[3], 'buckets', ARGV[4])
  return {ARGV[1], ARGV[2], ARGV[3], ARGV[4]}
end
return have
