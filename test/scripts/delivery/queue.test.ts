import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { beforeEach, describe, test } from 'node:test'
import { Queue, wordsOf } from '../../../scripts/lib/delivery/queue.ts'
import { append, startAppend } from '../../lib/append.ts'
import { temporaryFolder } from '../../lib/folder.ts'
import { openSandbox } from '../../lib/sandbox.ts'
import { waitUntil } from '../../lib/wait.ts'

const folder = temporaryFolder('queue')
const path = `${folder}/queue/firewall`

beforeEach(() => {
  rmSync(`${folder}/queue`, { recursive: true, force: true })
  mkdirSync(`${folder}/queue`)
})

const ban = (number: number | string): string[] => ['ban', `192.0.2.${number}`, 'sshd', '1.5', '-1']
const textOf = (number: number | string): string => `${ban(number).join('|')}|.`

/** Long enough that a queue is put away for it. */
function fill(): void {
  appendFileSync(path, `${textOf(0)}\n`.repeat(3000))
}

describe('an action line', () => {
  test('appends its words as one line, readable for the group, without a program', async () => {
    assert.deepEqual(await append(path, [...ban(7), "'22, {80}'", ''], 'PATH=/none'), {
      code: 0,
      stderr: '',
    })
    assert.equal(readFileSync(path, 'utf8'), "\nban|192.0.2.7|sshd|1.5|-1|'22, {80}'||.\n")
  })

  test('refuses with 65 what could be taken for something else', async () => {
    const hostile = ['a|b', 'a\nban', '$(id)', 'a;b', '`id`', 'a\tb', '"', '*', 'ä', '\\']
    for (const word of hostile) {
      const { code, stderr } = await append(path, ['ban', word, 'sshd', '1', '1'])
      assert.equal(code, 65, JSON.stringify(word))
      assert.match(stderr, /^queue: Cannot take a ban with such characters in it\n$/)
    }
    assert.equal(existsSync(path), false)
  })

  test('fails with 75 and one line if it cannot write', async () => {
    for (const place of [`${folder}/none/firewall`, '/dev/full', folder]) {
      const { code, stderr } = await append(place, ban(7))
      assert.equal(code, 75, place)
      assert.match(stderr, /^queue: Cannot write [^\n]+\n$/)
    }
  })

  test('opens no link, no pipe and no file of another, and waits for none of them (75)', async () => {
    const elsewhere = `${folder}/elsewhere`
    const make = [
      `ln -s ${elsewhere} ${path}`,
      `mkfifo ${path}`,
      `touch ${path} && chown 65534 ${path}`,
      `touch ${path}.taken && chown 65534 ${folder}/queue`,
      `mkdir ${path}`,
    ]
    for (const script of make) {
      rmSync(`${folder}/queue`, { recursive: true, force: true })
      mkdirSync(`${folder}/queue`)
      execFileSync('sh', ['-euc', script])
      const { code, stderr } = await append(path, ban(7))
      assert.equal(code, 75, script)
      assert.match(stderr, /^queue: Cannot write [^\n]+\n$/)
      assert.equal(existsSync(elsewhere), false)
    }
    assert.equal(statSync(path).isDirectory(), true)
  })

  test('writes again if its file was put away and deleted while it was slow', async () => {
    // A shell function that shadows printf stands for a machine that stops for a minute.
    const slow = `printf() {
      unset -f printf
      mv "$queue" "$queue.taken"; mv "$queue.taken" "$queue.gone"; rm "$queue.gone"
      printf "$@"
    }`
    writeFileSync(path, '')
    assert.equal((await append(path, ban(7), slow)).code, 0)
    assert.equal(readFileSync(path, 'utf8'), `\n${textOf(7)}\n`)
  })

  test('does not write again into a file that is still read', async () => {
    const slow = `printf() { unset -f printf; mv "$queue" "$queue.taken"; printf "$@"; }`
    writeFileSync(path, '')
    assert.equal((await append(path, ban(7), slow)).code, 0)
    assert.equal(existsSync(path), false)
    assert.equal(readFileSync(`${path}.taken`, 'utf8'), `\n${textOf(7)}\n`)
  })
})

describe('Queue', () => {
  test('read() gives each line once and in order, and none that is not finished', () => {
    const queue = new Queue(path)
    assert.deepEqual(queue.read(), [])
    writeFileSync(path, `\n${textOf(1)}\n\nban|192.0.2`)
    assert.deepEqual(queue.read(), [textOf(1)])
    appendFileSync(path, `.2|sshd|1.5|-1|.\n\n${textOf(3)}\n`)
    assert.deepEqual(queue.read(), [textOf(2), textOf(3)])
    assert.deepEqual(queue.read(), [])
    queue.close()
  })

  test('a line that a full disk cut off is told from a whole one, and spoils no other', () => {
    writeFileSync(path, `\nban|192.0.2.1|sshd|1.5|60\n${textOf(2)}\n`)
    const lines = new Queue(path).read()
    assert.deepEqual(lines.map(wordsOf), [undefined, ban(2)])
  })

  test('position() lets another process go on where this one ended', () => {
    writeFileSync(path, `${textOf(1)}\n`)
    const first = new Queue(path)
    first.read()
    appendFileSync(path, `${textOf(2)}\n`)
    const second = new Queue(path, first.position())
    assert.deepEqual(second.read(), [textOf(2)])
    const other = new Queue(path, '1.1:1 nonsense')
    assert.deepEqual(other.read(), [textOf(1), textOf(2)])
  })

  test('tidy() puts a long queue away, reads what comes late, and deletes it in the end', () => {
    const queue = new Queue(path)
    fill()
    assert.equal(queue.read().length, 3000)
    queue.tidy()
    assert.deepEqual([existsSync(path), existsSync(`${path}.taken`)], [false, true])
    writeFileSync(path, `${textOf(2)}\n`)
    appendFileSync(`${path}.taken`, `${textOf(1)}\n`)
    assert.deepEqual(queue.read(), [textOf(1), textOf(2)])
    queue.tidy(Date.now() + 60_000)
    assert.deepEqual([existsSync(`${path}.taken`), existsSync(`${path}.gone`)], [false, true])
    appendFileSync(`${path}.gone`, `${textOf(3)}\n`)
    queue.tidy(Date.now() + 60_000)
    assert.ok(existsSync(`${path}.gone`), 'there is a line in it that nobody has read')
    assert.deepEqual(queue.read(), [textOf(3)])
    queue.tidy(Date.now() + 60_000)
    assert.equal(existsSync(`${path}.gone`), false)
    assert.deepEqual(queue.read(), [])
  })

  test('whoever was killed while a queue was put away loses no line and reads none twice', () => {
    fill()
    const queue = new Queue(path)
    queue.read()
    queue.tidy()
    appendFileSync(`${path}.taken`, `${textOf(1)}\n`)
    appendFileSync(path, `${textOf(2)}\n`)
    const next = new Queue(path, queue.position())
    assert.deepEqual(next.read(), [textOf(1), textOf(2)])
    const kept = next.position()
    next.tidy(Date.now() + 60_000)
    appendFileSync(`${path}.gone`, `${textOf(3)}\n`)
    const last = new Queue(path, kept)
    assert.deepEqual(last.read(), [textOf(3)])
  })

  test('garbage without an end is passed over', () => {
    writeFileSync(path, `${'x'.repeat(3_000_000)}\n${textOf(1)}\n`)
    const queue = new Queue(path)
    const lines = [...queue.read(), ...queue.read(), ...queue.read(), ...queue.read()]
    assert.deepEqual(
      lines.filter((line) => wordsOf(line)),
      [textOf(1)],
    )
  })
})

for (const who of ['by its reader', 'by another, with what its reader has kept']) {
  test(`50 writers at once, some killed, a queue that is put away ${who}: none is lost`, async () => {
    const queue = new Queue(path)
    const tidy = (): void => {
      const other = who === 'by its reader' ? queue : new Queue(path, queue.position())
      other.tidy(Date.now() + 60_000)
      if (other !== queue) other.close()
    }
    const read: string[] = []
    let busy = true
    const reading = (async () => {
      while (busy) {
        read.push(...queue.read())
        fill() // so that every round puts one away
        read.push(...queue.read())
        tidy()
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
    })()
    const written: string[] = []
    const writer = async (number: number): Promise<void> => {
      for (let round = 0; round < 10; round++) {
        const word = `${number}.${round}`
        if (round % 5 === 4) {
          const child = startAppend(path, ban(word))
          setTimeout(() => child.kill('SIGKILL'), Math.random() * 10)
          await new Promise((resolve) => child.on('close', resolve))
        } else if ((await append(path, ban(word))).code === 0) written.push(textOf(word))
      }
    }
    await Promise.all(Array.from({ length: 50 }, (_, number) => writer(number)))
    busy = false
    await reading
    for (let i = 0; i < 5; i++) read.push(...queue.read())
    const own = read.filter((line) => wordsOf(line) && line !== textOf(0))
    assert.equal(written.length, 400)
    const lost = written.filter((line) => !own.includes(line))
    assert.deepEqual(lost, [], 'lost')
    assert.equal(new Set(own).size, own.length, 'doubled')
    const torn = read.filter((line) => !wordsOf(line))
    assert.deepEqual(torn, [], 'torn')
  })
}

test('a full disk: the action line fails loudly, and what was said to be written is there', async () => {
  const box = await openSandbox()
  try {
    await box.sh('mkdir /run/queue; mount -t tmpfs -o size=64k tmpfs /run/queue')
    writeFileSync(`${folder}/many.sh`, `queue=/run/queue/firewall\n. ${folder}/append.sh\n`)
    const conf = readFileSync('action.d/perimeter-queue.conf', 'utf8')
    const [, text = ''] = /^_append = ((?:.*\n)(?:[ \t]+.*\n)*)/m.exec(conf) ?? []
    writeFileSync(`${folder}/append.sh`, text.replaceAll('%%', '%'))
    const answers = await box.sh(`for i in $(seq 1 3000); do
      sh ${folder}/many.sh ban 192.0.2.$i sshd 1.5 -1 2>/dev/null && echo $i || echo "failed $?"
    done`)
    const lines = answers.trim().split('\n')
    const good = lines.filter((line) => !line.startsWith('failed'))
    assert.ok(good.length > 1000 && good.length < 3000, String(good.length))
    assert.ok(lines.every((line) => /^(\d+|failed 75)$/.test(line)))
    const file = (await box.sh('cat /run/queue/firewall')).split('\n')
    const whole = file.flatMap((line) => wordsOf(line)?.[1] ?? [])
    assert.deepEqual(
      whole,
      good.map((number) => `192.0.2.${number}`),
    )
    // There is room again: the torn line in front does no harm.
    await box.sh('mount -o remount,size=1m /run/queue')
    await box.sh(`sh ${folder}/many.sh ban 192.0.2.1 sshd 1.5 -1`)
    const last = (await box.sh('tail -n 1 /run/queue/firewall')).trim()
    assert.equal(last, textOf(1))
  } finally {
    await box.close()
  }
})

test('a writer that is stopped in the middle keeps nobody from writing', async () => {
  const slow = startAppend(path, ban(1), 'kill -STOP $$')
  await waitUntil('the writer to stop', async () => {
    return /T \(stopped\)/.test(readFileSync(`/proc/${slow.pid}/status`, 'utf8'))
  })
  assert.equal((await append(path, ban(2))).code, 0)
  spawn('kill', ['-CONT', String(slow.pid)])
  await new Promise((resolve) => slow.on('close', resolve))
  assert.deepEqual(new Queue(path).read(), [textOf(2), textOf(1)])
})
