import { codeOfSurvey, isUnseen, type Survey, type TargetSurvey } from './survey.ts'
import { plain } from './text.ts'

type Labels = Record<string, string>
type Sample = [Labels, number | undefined]

const PREFIX = 'fail2ban_perimeter_'

/**
 * The text format of Prometheus, version 0.0.4, for node_exporter's textfile collector. What is
 * unknown has no sample; moments are epoch seconds, as Prometheus likes them better than ages.
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
 */
export function metricsOf(survey: Survey): string {
  const { at, bans, fail2ban, deliverer, rejected, targets } = survey
  const each = (value: (one: TargetSurvey) => number | undefined): Sample[] =>
    targets.map((one) => [labelsOf(one), value(one)])
  const siblings = [...new Set(targets.map(({ sibling }) => sibling))]
  const metrics: [name: string, help: string, samples: Sample[]][] = [
    ['status_timestamp_seconds', 'When this was written.', [[{}, at]]],
    ['status_code', 'The exit code of f2b-status: 0 if all is well.', [[{}, codeOfSurvey(survey)]]],
    ['fail2ban_up', 'Whether Fail2Ban could be asked.', [[{}, fail2ban ? 0 : 1]]],
    ['fail2ban_bans', 'Bans of the jails that use our actions.', [[{}, bans]]],
    ['deliverer_up', 'Whether f2b-deliver runs.', [[{}, deliverer.running ? 1 : 0]]],
    ['up', 'Whether the target could be reached.', each((one) => flag(one.reachable))],
    ['leases', 'Leases of this server at the target.', each((one) => one.leases)],
    ['drift', 'Leases that differ from what Fail2Ban has banned.', driftOf(targets)],
    ['queued', 'Changes that wait for the target.', each((one) => one.queue?.queued)],
    [
      'oldest_queued_timestamp_seconds',
      'Since when the oldest of them waits.',
      each((one) => one.queue?.oldest || undefined),
    ],
    [
      'rejected',
      'Changes that the target refuses for good, and nobody has acknowledged.',
      each((one) => one.state.rejected.filter((o) => isUnseen(o, at)).length),
    ],
    [
      'rejected_lines',
      'Lines of the queue that can never work, and nobody has acknowledged.',
      siblings.map((sibling) => [
        { sibling },
        rejected.filter((one) => one.sibling === sibling && isUnseen(one.rejection, at)).length,
      ]),
    ],
    [
      'last_success_timestamp_seconds',
      'When something was last delivered.',
      each(({ state }) => state.lastSuccess || undefined),
    ],
    [
      'last_error_timestamp_seconds',
      'When a delivery last failed.',
      each(({ state }) => state.lastError?.at),
    ],
    [
      'failing_since_timestamp_seconds',
      'Since when deliveries fail without a break.',
      each(({ state }) => state.failingSince || undefined),
    ],
  ]
  return metrics.map(([name, help, samples]) => metricOf(name, help, samples)).join('')
}

function driftOf(targets: TargetSurvey[]): Sample[] {
  return targets.flatMap((one) =>
    (['missing', 'extra', 'wrong_expiry'] as const).map(
      (kind): Sample => [{ ...labelsOf(one), kind }, one.drift?.[kind]],
    ),
  )
}

function labelsOf({ sibling, target }: TargetSurvey): Labels {
  return { sibling, target }
}

function flag(value: boolean | undefined): number | undefined {
  return value === undefined ? undefined : Number(value)
}

function metricOf(name: string, help: string, samples: Sample[]): string {
  // Two targets of one name would be one sample twice, for which all of the file is refused.
  const known = new Map(
    samples.flatMap(([labels, value]) => (value === undefined ? [] : [[textOf(labels), value]])),
  )
  if (known.size === 0) return ''
  const lines = [...known].map(([labels, value]) => `${PREFIX}${name}${labels} ${value}\n`)
  return `# HELP ${PREFIX}${name} ${help}\n# TYPE ${PREFIX}${name} gauge\n${lines.join('')}`
}

function textOf(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => {
    const escaped = plain(value).replace(/[\\"]/g, '\\$&')
    return `${name}="${escaped}"`
  })
  return pairs.length > 0 ? `{${pairs.join(',')}}` : ''
}
