-- Marks a partition as lost, if it still stands where its rows were found missing.
-- KEYS: the watermark. ARGV: generation, builder, event, why.
local have = redis.call('HMGET', KEYS[1], 'gen', 'by', 'n')
if not moved(have[1], have[2]) and (have[3] or '0') == ARGV[3] then
  redis.call('HSET', KEYS[1], 'lost', ARGV[4])
end
return {'ok'}
