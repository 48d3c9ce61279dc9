-- Removes all rows of a partition and its watermark, and keeps the epoch. KEYS: the watermark,
-- then every container that can be. ARGV: epoch, buckets.
-- Reply: 'ok'; 'fenced', the later epoch.
local have = redis.call('HMGET', KEYS[1], 'epoch', 'about')
if have[1] and have[1] > ARGV[1] then
  return {'fenced', have[1]}
end
for i = 1, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, i, math.min(i + 999, #KEYS)))
end
if have[1] then
  redis.call('HSET', KEYS[1], 'epoch', have[1], 'buckets', ARGV[2], 'about', have[2] or '')
end
return {'ok'}
