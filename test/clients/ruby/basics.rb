# What bunny makes of a broker's answers, line by line.
#
#   ruby basics.rb PUBLISHER_URL CONSUMER_URL
require 'bunny'
require 'timeout'

PATIENCE = 60

def connect(url)
  Bunny.new(url, log_level: :fatal, automatically_recover: false).start
end

# show prints what a block answers, or the error that it ends with.
def show(claim)
  answer = Timeout.timeout(PATIENCE) { yield }
  puts "#{claim}: #{answer}"
rescue Bunny::Exception => e
  puts "#{claim}: #{e.class}"
end

# filled waits until a queue has so many ready messages.
def filled(queue, messages)
  sleep 0.02 until queue.message_count == messages
  queue
end

# To bunny a slash at the end is the vhost "".
NEAR, FAR = ARGV.map { |url| url.chomp('/') }
$stdout.sync = true
near = connect(NEAR)
far = connect(FAR)

show('confirms') do
  channel = near.create_channel
  channel.confirm_select
  queue = channel.queue('ruby.work', durable: true)
  100.times { |i| queue.publish(i.to_s, persistent: true) }
  [channel.wait_for_confirms, far.create_channel.queue('ruby.work', passive: true).message_count].inspect
end
show('a consumer elsewhere, in order') do
  channel = far.create_channel
  channel.prefetch(7)
  got = Queue.new
  consumer = channel.queue('ruby.work', durable: true).subscribe(manual_ack: true) do |delivery, _, body|
    channel.ack(delivery.delivery_tag)
    got << body.to_i
  end
  all = Array.new(100) { got.pop }
  consumer.cancel
  all == (0...100).to_a
end
show('a mandatory message') do
  exchange = near.create_channel.default_exchange
  back = Queue.new
  exchange.on_return { |info, _, body| back << [info.reply_code, info.reply_text, body] }
  exchange.publish('m', routing_key: 'ruby.nowhere', mandatory: true)
  back.pop.inspect
end
show('properties') do
  channel = near.create_channel
  queue = channel.queue('', exclusive: true)
  sent = { headers: { 'n' => 1.5, 'list' => [1, 'two'], 'at' => Time.at(77) }, priority: 3, expiration: '60000', user_id: 'guest', timestamp: 77 }
  queue.publish('m', **sent)
  _, got, = filled(queue, 1).pop
  [got.headers.sort, got.priority, got.expiration, got.user_id, got.timestamp.to_i].inspect.sub(Time.at(77).inspect, 'AT')
end
show('a consumer whose queue is deleted elsewhere') do
  channel = near.create_channel
  queue = channel.queue('ruby.gone')
  ended = Queue.new
  consumer = Bunny::Consumer.new(channel, queue, 'tag')
  consumer.on_cancellation { |cancel| ended << cancel.consumer_tag }
  queue.subscribe_with(consumer)
  far.create_channel.queue_delete('ruby.gone')
  ended.pop
end
show('a queue that is not there') { near.create_channel.queue('ruby.nowhere', passive: true) }
show('a queue declared in another way') { near.create_channel.queue('ruby.work', durable: false) }
show('an exchange of another type') do
  far.create_channel.fanout('ruby.fanout')
  near.create_channel.topic('ruby.fanout')
end
show('a queue of another connection') do
  near.create_channel.queue('ruby.own', exclusive: true)
  far.create_channel.queue('ruby.own', exclusive: true)
end
show('tx after confirm') do
  channel = near.create_channel
  channel.confirm_select
  channel.tx_select
end
show('delete of an exchange in use') do
  channel = near.create_channel
  exchange = channel.fanout('ruby.fanout')
  channel.queue('', exclusive: true).bind(exchange)
  exchange.delete(if_unused: true)
end
show('a wrong password') { connect(NEAR.sub('guest:guest', 'guest:wrong')) }
show('a vhost that is not there') { connect("#{NEAR}/nowhere") }
show('what there is') { [near.queue_exists?('ruby.work'), far.queue_exists?('ruby.none'), far.exchange_exists?('amq.topic')].inspect }
show('the end') do
  near.create_channel.exchange_delete('ruby.fanout')
  near.create_channel.queue_delete('ruby.work')
  [near, far].each(&:close).map(&:closed?).inspect
end
